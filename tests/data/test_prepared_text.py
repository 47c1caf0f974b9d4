"""The text in the data folder: whose it is, in which form, and that none of it is lost, mixed or cut in two."""

import gzip
import json
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.preparing import DOCUMENTS, Prepare, write

from litmoe.config import PrepareConfig
from litmoe.data.corpus import open_sources
from litmoe.data.documents import END_OF_TEXT
from litmoe.data.splitting import write_splits
from litmoe.errors import LitMoEError


@pytest.fixture
def run(tmp_path: Path) -> Prepare:
    return Prepare(tmp_path)


def lines(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- whose text it is --------------------------------------------------------------------------------------------


def write_tree(folder: Path) -> list[str]:
    """The documents, a few in each form, at several depths; returns them in the order of their files."""
    with_gaps = f"\n{END_OF_TEXT}\n"
    put(folder / "B.TXT", with_gaps.join(DOCUMENTS[20:40]))
    put(folder / "a/more/one.jsonl.gz", gzip.compress(lines(*DOCUMENTS[:20]).encode()))
    put(folder / "c.json", json.dumps([{"text": text} for text in DOCUMENTS[40:60]]))
    pq.write_table(pa.table({"text": DOCUMENTS[60:80]}), folder / "d.parquet")
    with zipfile.ZipFile(folder / "e.zip", "w") as archive:
        archive.writestr("x.txt", with_gaps.join(DOCUMENTS[80:100]))
    put(folder / "f.txt", with_gaps.join(DOCUMENTS[100:]).encode("utf-16"))
    order = [*range(20, 40), *range(20), *range(40, len(DOCUMENTS))]
    return [DOCUMENTS[number] for number in order]


def test_own_text_is_what_source_would_read(run: Prepare, tmp_path: Path) -> None:
    """In every form, in folders below, endings in any case; no story is written beside it."""
    expected = write_tree(run.data / "train")
    write_tree(tmp_path / "same")
    put(run.data / "train/notes.md", "not read")
    put(tmp_path / "same/notes.md", "not read")
    run(source=[])
    in_place = run.documents("train"), run.documents("val")
    assert run.said_something_like("left out 1 file of other kinds (notes.md), 8 bytes")
    assert Counter(in_place[0] + in_place[1]) == Counter(expected)
    run(
        source=[str(tmp_path / "same")],
        data_dir=tmp_path / "other",
        tokenizer_dir=tmp_path / "other-tokenizer",
    )
    assert run.said_something_like("left out 1 file of other kinds (notes.md), 8 bytes")
    run.data = tmp_path / "other"
    run.config.tokenizer_dir = tmp_path / "other-tokenizer"
    assert (run.documents("train"), run.documents("val")) == in_place


@pytest.mark.parametrize(
    "name", ["train/ALL.TXT", "train/all.jsonl", "train/deep/all.txt", "train/all.txt.gz"]
)
def test_the_stories_are_never_written_beside_somebody_s_text(run: Prepare, name: str) -> None:
    text = lines(*DOCUMENTS) if ".jsonl" in name else f"\n{END_OF_TEXT}\n".join(DOCUMENTS)
    put(run.data / name, gzip.compress(text.encode()) if name.endswith(".gz") else text)
    run(source=[])
    assert sorted(run.documents("train") + run.documents("val")) == sorted(DOCUMENTS)
    run.refused("was not written by prepare", source=["sample"])


@pytest.mark.parametrize("name", ["all.txt", "texts/all.txt", "book.pdf", "train/book.pdf", "val/notes.md"])
@pytest.mark.parametrize("source", [[], ["sample"]])
def test_nor_beside_anything_else_of_somebody_s(run: Prepare, name: str, source: list[str]) -> None:
    put(run.data / name, "something")
    run.refused(rf"{Path(name).name} is not litmoe's, and the built-in stories are not mixed", source=source)


def test_validation_text_alone_is_not_given_stories_to_train_on(run: Prepare) -> None:
    write(run.data / "val/mine.txt", DOCUMENTS)
    run.refused("mine.txt is for validation, and there is no text to train on", source=[])


def test_text_put_among_the_stories_stops(run: Prepare) -> None:
    run(source=[], tokenizer=None, max_documents=50)
    write(run.data / "train/mine.txt", DOCUMENTS)
    run.refused("mine.txt lies among the built-in stories", source=[], tokenizer=None, max_documents=50)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("cannot fetch the tokenizer nobody/nothing", {"tokenizer": "nobody/nothing"}),
        ("a vocabulary of 200 is too small", {"vocab_size": 200}),
        ("there is no file or folder", {"source": ["nowhere"]}),
        ("has no 'body', only the fields text", {"text_field": "body"}),
        ("--max-documents has 2 numbers for 1 sources", {"max_documents": [1, 2]}),
        ("--val-fraction is 0", {"val_fraction": 0}),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, changes: dict[str, Any]
) -> None:
    """No text, no folder, no lock: not in a new place, and not beside somebody's files."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run.config.source = [str(put(tmp_path / "source.jsonl", lines(*DOCUMENTS)))]
    run.refused(message, **changes)
    assert not run.data.exists() and not run.config.tokenizer_dir.exists()
    put(run.data / "notes/mine.md", "mine")
    run.refused(message, **changes)
    assert [path.name for path in sorted(run.data.rglob("*"))] == ["notes", "mine.md"]


# --- records -----------------------------------------------------------------------------------------------------

QUOTING = f"He wrote {END_OF_TEXT}\n and {END_OF_TEXT} again."


def test_a_record_that_quotes_the_marker_is_one_document(run: Prepare, tmp_path: Path) -> None:
    """In the shards, in the store, and without the end-of-text token inside."""
    texts = [*DOCUMENTS[:60], QUOTING, *DOCUMENTS[60:]]
    source = put(tmp_path / "a.jsonl", lines(*texts))
    prepared = run(source=[str(source)])
    assert sorted(run.documents("train") + run.documents("val")) == sorted(texts)
    assert prepared.train.documents + prepared.val.documents == len(texts)
    record = json.loads((run.data / "corpus.json").read_text(encoding="utf-8"))
    names = [entry["name"] for entry in record["files"]]
    assert [name for name in names if name.endswith(".jsonl")]
    fingerprint = prepared.train.fingerprint
    assert run(source=[str(source)]).train.fingerprint == fingerprint


def test_plain_text_stays_in_plain_files(run: Prepare, tmp_path: Path) -> None:
    """Byte for byte as before; a file of JSON lines only where a record needs it, in its place."""
    write(tmp_path / "source.txt", DOCUMENTS)
    run()
    names = sorted(path.relative_to(run.data).as_posix() for path in run.data.rglob("shard-*"))
    assert names == ["train/shard-00000.txt", "val/shard-00000.txt"]
    train = "".join(f"{text}\n{END_OF_TEXT}\n" for text in run.documents("train"))
    assert (run.data / "train/shard-00000.txt").read_bytes() == train.encode()


@pytest.mark.parametrize(
    "text",
    [
        "%PDF-1.4 is how such a file begins.",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "PAR1 and so on",
        "a\0b\0c\0d\0e\0f\0g\0h\0i\0j\0k\0l\0",
        "x" * 257 + "ustar",
    ],
)
def test_a_shard_is_never_taken_for_another_kind_of_file(run: Prepare, tmp_path: Path, text: str) -> None:
    """Though a record may begin as such files do, and a shard with it."""
    source = put(tmp_path / "a.jsonl", lines(text, text + " and more", "a third", "a fourth"))
    run(source=[str(source)], val_fraction=0.5)
    expected = [text, text + " and more", "a third", "a fourth"]
    assert sorted(run.documents("train") + run.documents("val")) == sorted(expected)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.sampled_from([END_OF_TEXT, "a", " ", "\n", '"', "\\", "é", "\x00", "b c"]), min_size=1
        ).map("".join),
        min_size=2,
        max_size=12,
    ),
    st.integers(20, 200),
)
def test_shards_hold_the_documents_of_any_records(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], shard_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("records")
    put(folder / "a.jsonl", lines(*texts))
    config = PrepareConfig(source=[str(folder / "a.jsonl")], progress=False, val_fraction=0.5)
    expected = [text.strip() for text in texts if text.strip()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litmoe.data.text_shards.SHARD_BYTES", shard_bytes)
        if len(set(expected)) < 2:
            with pytest.raises(LitMoEError, match="holds"):
                write_splits(open_sources(config), config, folder / "out")
            return
        write_splits(open_sources(config), config, folder / "out")
    found = []
    for split in ("train", "val"):
        [source] = open_sources(PrepareConfig(source=[str(folder / "out" / split)]))
        document = ""
        for piece in source.parts[0].read():
            document += piece.text
            if piece.ends_document:
                found.append(document)
                document = ""
    assert Counter(found) == Counter(expected)


# --- sources that change -----------------------------------------------------------------------------------------


def test_two_files_of_one_size_and_time_are_exchanged(run: Prepare, tmp_path: Path) -> None:
    """Size and time of modification cannot tell; a copy that only has another inode is no change."""
    first, second = tmp_path / "s/train.txt", tmp_path / "s/val.txt"
    write(first, DOCUMENTS[:60])
    second.write_bytes(first.read_bytes().replace(b"Story", b"Stori"))
    for path in (first, second):
        os.utime(path, ns=(10**18, 10**18))
    run(source=[str(tmp_path / "s")])
    copied = tmp_path / "copy"
    shutil.copy2(first, copied)
    copied.replace(first)
    run(source=[str(tmp_path / "s")])
    assert run.said_something_like("already prepared")
    first.rename(copied)
    second.rename(first)
    copied.rename(second)
    run.refused("train.txt changed since; use --force", source=[str(tmp_path / "s")])
    run(source=[str(tmp_path / "s")], force=True)
    assert run.documents("train")[0].startswith("Stori") and run.documents("val")[0].startswith("Story")


def test_a_record_that_names_other_files_is_not_followed(run: Prepare, tmp_path: Path) -> None:
    """Preparing again removes the files of the record: it may come from elsewhere."""
    run()
    victim = put(tmp_path / "precious.txt", "mine")
    record = json.loads((run.data / "corpus.json").read_text(encoding="utf-8"))
    record["files"].append({"name": "../precious.txt", "size": 4, "sha256": ""})
    (run.data / "corpus.json").write_text(json.dumps(record), encoding="utf-8")
    run.refused("corpus.json is damaged", max_documents=50, force=True)
    assert victim.read_text() == "mine"


# --- what is said, and how documents are divided -----------------------------------------------------------------


def test_what_has_no_text_and_what_is_odd_is_counted(run: Prepare, tmp_path: Path) -> None:
    put(
        tmp_path / "s/a.jsonl",
        "null\n" + lines(*DOCUMENTS[:50], "with\0nul and \x07bell") + '{"text": null}\n',
    )
    put(tmp_path / "s/b.txt", DOCUMENTS[60].encode("utf-16"))
    run(source=[str(tmp_path / "s")])
    for expected in (
        "records that are null, left out: 1 (first: ",
        "records whose text is null, left out: 1 (first: ",
        "files in UTF-16-LE, read as such: 1 (first: ",
        "2 control characters (NUL and the like) are kept as text",
    ):
        assert run.said_something_like(expected), expected
    assert "with\0nul and \x07bell" in run.documents("train") + run.documents("val")


def test_a_long_document_is_trained_on(run: Prepare, tmp_path: Path) -> None:
    """Whatever its hash says. Of every pair (long, short), the long one ends in the training text."""
    exchanged = 0
    for number in range(6):
        long, short = f"Book {number}. " + "So it goes. " * 3000, f"Note {number}."
        write(tmp_path / f"s{number}.txt", [long, short])
        run.data, run.config.tokenizer_dir = tmp_path / f"data{number}", tmp_path / f"tokenizer{number}"
        run(source=[str(tmp_path / f"s{number}.txt")], data_dir=run.data)
        assert (run.documents("train"), run.documents("val")) == ([long.strip()], [short])
        names = sorted(path.relative_to(run.data).as_posix() for path in run.data.rglob("shard-*"))
        assert names == ["train/shard-00000.txt", "val/shard-00000.txt"]
        exchanged += run.said_something_like("would train on 7 bytes and validate on 36 kB: exchanged")
        assert run(source=[str(tmp_path / f"s{number}.txt")], data_dir=run.data, tokenizer=None)
        assert run.said_something_like("already prepared")
    assert 0 < exchanged < 6


def test_more_validation_than_training_text_is_said(run: Prepare, tmp_path: Path) -> None:
    write(tmp_path / "own/train.txt", DOCUMENTS[:3])
    write(tmp_path / "own/val.txt", DOCUMENTS[3:])
    run(source=[str(tmp_path / "own")])
    assert run.said_something_like("there is more validation text than training text: ")


def test_a_split_that_is_not_used_is_named(run: Prepare, tmp_path: Path) -> None:
    for number, name in enumerate(("train", "val", "extra")):
        write(tmp_path / f"own/{name}.txt", DOCUMENTS[40 * number : 40 * (number + 1)])
    run(source=[str(tmp_path / "own")])
    assert run.said_something_like("extra.txt belongs to neither part")


def test_a_zip_may_have_its_own_split(run: Prepare, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name, texts in (("data/train.txt", DOCUMENTS[:100]), ("data/val.jsonl", DOCUMENTS[100:])):
            content = lines(*texts) if name.endswith("l") else f"\n{END_OF_TEXT}\n".join(texts)
            archive.writestr(name, content)
    run(source=[str(tmp_path / "own.zip")])
    assert run.documents("train") == DOCUMENTS[:100] and run.documents("val") == DOCUMENTS[100:]


def test_so_many_documents_of_each_source(run: Prepare, tmp_path: Path) -> None:
    sources = ["sample"]
    for name, texts in (("a", DOCUMENTS[:50]), ("b", DOCUMENTS[50:])):
        write(tmp_path / f"{name}.txt", texts)
        sources.append(str(tmp_path / f"{name}.txt"))
    run(source=sources, max_documents=[30, 7, None])
    found = run.documents("train") + run.documents("val")
    assert len(found) == 30 + 7 + 70 and {*DOCUMENTS[:7], *DOCUMENTS[50:]} <= {*found}
    assert not {*DOCUMENTS[7:50]} & {*found}
    run.refused("max_documents was .*, now .*use --force", source=sources, max_documents=[30, 8, None])
    run.refused("--max-documents has 2 numbers for 3 sources", source=sources, max_documents=[30, 8])
    run.refused("--max-documents is 0; give 1 or more", source=sources, max_documents=[30, 0, 8])


def test_so_many_documents_of_a_source_with_its_own_split(run: Prepare, tmp_path: Path) -> None:
    write(tmp_path / "own/train.txt", DOCUMENTS[:60])
    write(tmp_path / "own/val.txt", DOCUMENTS[60:80])
    write(tmp_path / "more.txt", DOCUMENTS[80:])
    sources = [str(tmp_path / "own"), str(tmp_path / "more.txt")]
    run(source=sources, max_documents=[20, 10], val_fraction=0.1)
    found = run.documents("train"), run.documents("val")
    assert {*DOCUMENTS[60:62]} <= {*found[1]} and {*DOCUMENTS[:18]} <= {*found[0]}
    assert len(found[0]) + len(found[1]) == 30
