"""A store decodes to its documents, is rebuilt exactly when it must be, and never half there."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litmoe.data.checksums import state_of
from litmoe.data.documents import END_OF_TEXT
from litmoe.data.token_store import Part, TokenStore, ensure_store, ensure_stores
from litmoe.data.tokenizer import copy_tokenizer, train_tokenizer
from litmoe.errors import DataError, LitMoEError

DOCUMENTS = [
    f"Document {i}: once upon a time there were {i * i} foxes.\n\nThe end, isn't it?" for i in range(200)
]
GPT2 = Path(__file__).parents[3] / "shared/tokenizers/gpt2"


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "own"
    train_tokenizer(DOCUMENTS, 400, folder, progress=False)
    return folder


@pytest.fixture
def text_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    write(folder / "a.txt", DOCUMENTS[:150])
    write(folder / "b.txt", DOCUMENTS[150:])
    return folder


def write(path: Path, documents: list[str]) -> None:
    path.write_text(f"\n{END_OF_TEXT}\n".join(documents), encoding="utf-8", newline="\n")


def decoded(store: TokenStore, tokenizer_dir: Path) -> list[str]:
    """The documents, by the `tokenizers` library alone; checks the end tokens on the way."""
    tokenizer = hf.Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    documents = []
    for start, end in zip(store.document_offsets[:-1], store.document_offsets[1:], strict=True):
        ids = store.tokens[start:end].tolist()
        assert ids[-1] == store.eos_id and store.eos_id not in ids[:-1]
        documents.append(tokenizer.decode(ids[:-1], skip_special_tokens=False))
    return documents


class Build:
    """``ensure_store`` with its lines."""

    def __init__(self, text_dir: Path, tokenizer_dir: Path) -> None:
        self.text_dir, self.tokenizer_dir = text_dir, tokenizer_dir
        self.store_dir = text_dir / "train"
        self.said: list[str] = []

    def __call__(self, part: Part | None = None) -> TokenStore:
        self.said = []
        return ensure_store(
            self.text_dir, self.tokenizer_dir, self.store_dir, say=self.said.append, progress=False, part=part
        )


@pytest.fixture
def build(text_dir: Path, tokenizer_dir: Path) -> Build:
    return Build(text_dir, tokenizer_dir)


def test_store_decodes_to_its_documents(build: Build) -> None:
    store = build()
    assert decoded(store, build.tokenizer_dir) == DOCUMENTS
    assert store.n_documents == len(DOCUMENTS) and store.n_tokens == len(store.tokens)
    assert store.n_bytes == sum(len(document.encode()) for document in DOCUMENTS)
    assert store.tokens.dtype == np.uint16 and store.document_offsets.dtype == np.int64
    assert (store.eos_id, store.vocab_size) == (0, 400)
    assert {path.name for path in build.store_dir.iterdir()} == {"tokens.bin", "documents.bin", "store.json"}
    assert len(build.said) == 1 and "train store built from" in build.said[0]


def test_ids_are_those_of_encoding_each_document_alone(build: Build) -> None:
    tokenizer = hf.Tokenizer.from_file(str(build.tokenizer_dir / "tokenizer.json"))
    expected = [
        i for document in DOCUMENTS for i in [*tokenizer.encode(document, add_special_tokens=False).ids, 0]
    ]
    assert build().tokens.tolist() == expected


def test_long_document_is_encoded_as_if_whole(tokenizer_dir: Path, tmp_path: Path) -> None:
    text = " ".join(f"{document} and so on" for document in DOCUMENTS * 60)
    assert len(text) > 800_000
    (tmp_path / "long.txt").write_text(text, encoding="utf-8", newline="\n")
    store = Build(tmp_path, tokenizer_dir)()
    tokenizer = hf.Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    assert store.n_documents == 1
    assert store.tokens.tolist() == [*tokenizer.encode(text, add_special_tokens=False).ids, 0]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\ufeff")), max_size=5)
)
def test_any_documents(
    tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory, documents: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(folder / "x.txt", documents)
    text = (folder / "x.txt").read_bytes().decode()
    expected = [document.strip() for document in text.split(END_OF_TEXT) if document.strip()]
    build = Build(folder, tokenizer_dir)
    if expected:
        assert decoded(build(), tokenizer_dir) == expected
    else:
        with pytest.raises(LitMoEError, match="is empty"):
            build()


def test_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    words = {f"w{i}": i for i in range(70_000)} | {END_OF_TEXT: 70_000}
    tokenizer = hf.Tokenizer(hf.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    (tmp_path / "source").mkdir()
    tokenizer.save(str(tmp_path / "source/tokenizer.json"))
    copy_tokenizer(tmp_path / "source", tmp_path / "t")
    (tmp_path / "x.txt").write_text("w69999 w1")
    store = Build(tmp_path, tmp_path / "t")()
    assert store.tokens.dtype == np.uint32 and store.tokens.tolist() == [69_999, 1, 70_000]


@pytest.mark.skipif(not GPT2.is_dir(), reason="GPT-2's vocabulary is not beside the checkout")
def test_gpt2_store(text_dir: Path, tmp_path: Path) -> None:
    copy_tokenizer(GPT2, tmp_path / "gpt2")
    store = Build(text_dir, tmp_path / "gpt2")()
    assert decoded(store, tmp_path / "gpt2") == DOCUMENTS
    assert (store.eos_id, store.vocab_size, store.tokens.dtype) == (50256, 50257, np.uint16)


def test_unchanged_text_is_reused_without_a_word(build: Build) -> None:
    first = build()
    inode = (build.store_dir / "tokens.bin").stat().st_mtime_ns
    for path in build.text_dir.glob("*.txt"):
        os.utime(path)  # touched, or copied from elsewhere: the content decides
    assert build().fingerprint == first.fingerprint
    assert build.said == [] and (build.store_dir / "tokens.bin").stat().st_mtime_ns == inode


def test_rebuilt_when_text_changes(build: Build) -> None:
    before = build().fingerprint
    write(build.text_dir / "b.txt", ["changed"])
    assert build().fingerprint != before and build.said == ["train store rebuilt: b.txt changed"]
    write(build.text_dir / "c.txt", ["new"])
    assert build().n_documents == 152 and build.said == ["train store rebuilt: c.txt is new"]
    (build.text_dir / "c.txt").unlink()
    assert build().n_documents == 151 and build.said == ["train store rebuilt: c.txt is gone"]


def test_same_size_and_time_is_still_noticed_soon_after_the_build(build: Build) -> None:
    build()
    path = build.text_dir / "a.txt"
    stat, text = path.stat(), path.read_text(encoding="utf-8")
    path.write_text(text.replace("foxes", "boxes"), encoding="utf-8", newline="\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store = build()
    assert build.said == ["train store rebuilt: a.txt changed"]
    assert "boxes" in decoded(store, build.tokenizer_dir)[0]


def test_copied_text_is_compared_once_then_trusted(build: Build) -> None:
    """By the bytes that this process reads, as Linux counts them; a small store is read whole every time."""
    path = build.text_dir / "big.txt"
    write(path, [f"A big fox, number {i}." for i in range(100_000)])
    build()
    age(build)
    trusted = bytes_read(build)
    os.utime(path, ns=(10**18, 10**18))  # touched, copied, or checked out by git
    assert bytes_read(build) > trusted + path.stat().st_size and build.said == []
    age(build)
    assert bytes_read(build) < trusted + 1e5 and build.said == []


def age(build: Build) -> None:
    """As if text and store had been looked at an hour later: then no file is too young to be trusted."""
    path = build.store_dir / "store.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for entry in record["files"]:
        entry["seen_ns"] += 3600 * 10**9
    path.write_text(json.dumps(record), encoding="utf-8")


def bytes_read(build: Build) -> int:
    """What one call reads."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("needs Linux's /proc")
    before = int(counter.read_text().split()[1])
    build()
    return int(counter.read_text().split()[1]) - before


def test_two_files_of_equal_size_and_time_that_change_places(build: Build) -> None:
    a, b = build.text_dir / "a.txt", build.text_dir / "b.txt"
    write(a, ["one fox"])
    write(b, ["two owl"])
    for path in (a, b):
        os.utime(path, ns=(10**18, 10**18))
    before = build()
    age(build)
    a.rename(build.text_dir / "c")
    b.rename(a)
    (build.text_dir / "c").rename(b)
    assert decoded(build(), build.tokenizer_dir) == ["two owl", "one fox"]
    assert build.said == ["train store rebuilt: a.txt changed"]
    assert build().fingerprint != before.fingerprint


def test_other_text_with_the_old_time_and_size(build: Build) -> None:
    build()
    age(build)
    change_in_secret(build.text_dir / "a.txt")
    assert "boxes" in decoded(build(), build.tokenizer_dir)[0]
    assert build.said == ["train store rebuilt: a.txt changed"]


def test_where_no_disk_tells_blocks_of_the_text_do(build: Build) -> None:
    """Windows has no time of change: the record is made to say that nothing happened to the file."""
    build()
    age(build)
    change_in_secret(build.text_dir / "a.txt")
    path = build.store_dir / "store.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["files"][0] |= state_of(build.text_dir / "a.txt")
    path.write_text(json.dumps(record), encoding="utf-8")
    assert "boxes" in decoded(build(), build.tokenizer_dir)[0]


def change_in_secret(path: Path) -> None:
    stat, text = path.stat(), path.read_text(encoding="utf-8")
    path.write_text(text.replace("foxes", "boxes"), encoding="utf-8", newline="\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("is_known", [False, True], ids=["it was touched", "the disk lost a bit"])
@pytest.mark.parametrize("name", ["tokens.bin", "documents.bin"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_damage_of_the_same_size_is_found(
    build: Build, name: str, is_known: bool, place: float, bit: int
) -> None:
    build()
    path, record_path = build.store_dir / name, build.store_dir / "store.json"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    if is_known:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        record["checks"][name]["state"] = state_of(path)
        record_path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError, match=f"no usable token store in .*{name} is damaged"):
        TokenStore.open(build.store_dir)
    assert decoded(build(), build.tokenizer_dir) == DOCUMENTS
    assert len(build.said) == 1 and f"rebuilt: {name} is damaged" in build.said[0]


def test_a_store_of_version_0_1_0_stays_valid_and_gets_checksums(build: Build) -> None:
    before = build()
    path = build.store_dir / "store.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["checks"]
    for entry in record["files"]:
        del entry["ctime_ns"], entry["inode"], entry["blocks"]
    path.write_text(json.dumps(record), encoding="utf-8")
    tokens_made = (build.store_dir / "tokens.bin").stat().st_ctime_ns
    assert build().fingerprint == before.fingerprint and build.said == []
    assert (build.store_dir / "tokens.bin").stat().st_ctime_ns == tokens_made
    assert "checks" in json.loads(path.read_text(encoding="utf-8"))


def test_ids_that_are_no_tokens_are_damage_in_a_store_of_version_0_1_0(build: Build) -> None:
    build()
    path = build.store_dir / "store.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["checks"]
    path.write_text(json.dumps(record), encoding="utf-8")
    tokens = np.fromfile(build.store_dir / "tokens.bin", "<u2")
    tokens[7] = 400
    tokens.tofile(build.store_dir / "tokens.bin")
    assert decoded(build(), build.tokenizer_dir) == DOCUMENTS
    assert build.said == ["train store rebuilt: tokens.bin is damaged: it holds ids that are no tokens"]


def test_a_disk_that_numbers_its_files_anew_is_not_read_every_time(build: Build) -> None:
    write(build.text_dir / "big.txt", [f"A big fox, number {i}." for i in range(100_000)])
    size = (build.text_dir / "big.txt").stat().st_size
    build()
    age(build)
    trusted = bytes_read(build)
    for is_new in (True, False):
        age(build)
        path = build.store_dir / "store.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        for entry in (*record["files"], *(check["state"] for check in record["checks"].values())):
            entry["inode"] = None if entry["inode"] is None else entry["inode"] + 1
        path.write_text(json.dumps(record), encoding="utf-8")
        assert (bytes_read(build) > trusted + size) == is_new and build.said == []


def test_files_of_one_name_in_two_folders_are_told_apart(build: Build) -> None:
    more = build.text_dir / "more"
    more.mkdir()
    write(more / "a.txt", ["deep one"])
    assert decoded(build(), build.tokenizer_dir) == [*DOCUMENTS, "deep one"]
    assert build().n_documents == 201 and build.said == []
    write(more / "a.txt", ["deep two"])
    assert decoded(build(), build.tokenizer_dir)[-1] == "deep two"
    assert build.said == ["train store rebuilt: more/a.txt changed"]


def test_what_is_left_out_or_odd_is_said_when_a_store_is_built(build: Build) -> None:
    (build.text_dir / "notes.pdf").write_bytes(b"%PDF-1.4")
    write(build.text_dir / "odd.txt", ["a\x00b"])
    build()
    assert len(build.said) == 3 and "notes.pdf" in build.said[1] and "1 control character" in build.said[2]
    build()
    assert build.said == []


def test_records_are_read_by_their_field(build: Build) -> None:
    (build.text_dir / "c.jsonl").write_text('{"text": "one", "body": "two"}\n', encoding="utf-8")
    for path in build.text_dir.glob("*.txt"):
        path.unlink()
    for field, expected in (("text", "one"), ("body", "two"), ("body", "two")):
        store = ensure_store(
            build.text_dir, build.tokenizer_dir, build.store_dir, say=build.said.append, text_field=field
        )
        assert decoded(store, build.tokenizer_dir) == [expected]
    assert build.said[1:] == ["train store rebuilt: the field with the text changed"]


def test_more_validation_text_than_training_text_is_said(tokenizer_dir: Path, tmp_path: Path) -> None:
    write(tmp_path / "x.txt", DOCUMENTS)
    said: list[str] = []
    ensure_stores(tmp_path, tmp_path / "v", tokenizer_dir, say=said.append, val_fraction=0.9)
    assert "tokens are left to train on" in said[-1] and "--val-fraction" in said[-1]


def test_rebuilt_when_tokenizer_or_format_changes(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    train_tokenizer(DOCUMENTS, 350, tmp_path / "other", progress=False)
    build.tokenizer_dir = tmp_path / "other"
    assert build().vocab_size == 350 and build.said == ["train store rebuilt: the tokenizer changed"]
    monkeypatch.setattr("litmoe.data.token_store.FORMAT", 2)
    build()
    assert build.said == ["train store rebuilt: it was written by another version of litmoe"]


@pytest.mark.parametrize("name", ["tokens.bin", "documents.bin", "store.json"])
@pytest.mark.parametrize("damage", ["cut", "remove"])
def test_damaged_store_is_refused_and_rebuilt(build: Build, name: str, damage: str) -> None:
    build()
    path = build.store_dir / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    with pytest.raises(LitMoEError, match=r"no usable token store in .*run litmoe prepare") as error:
        TokenStore.open(build.store_dir)
    assert name in str(error.value) and "\n" not in str(error.value)
    assert decoded(build(), build.tokenizer_dir) == DOCUMENTS
    assert len(build.said) == 1


def test_bad_input_changes_nothing(build: Build, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="the folder does not exist"):
        TokenStore.open(tmp_path / "missing")
    build()
    before = (build.store_dir / "tokens.bin").read_bytes()
    (build.text_dir / "b.txt").write_bytes(b"good\xffbad")
    with pytest.raises(LitMoEError, match=r"b.txt is not UTF-8: byte 0xff at offset 4;"):
        build()
    assert (build.store_dir / "tokens.bin").read_bytes() == before
    assert not [path for path in build.text_dir.iterdir() if "building" in path.name]
    for path in build.text_dir.glob("*.txt"):
        path.unlink()
    with pytest.raises(LitMoEError, match=r"no .txt, .jsonl, .json, .parquet file in"):
        build()
    with pytest.raises(LitMoEError, match="there is no text folder"):
        Build(tmp_path / "missing", build.tokenizer_dir)()


def test_other_peoples_folder_is_left_alone(build: Build) -> None:
    build.store_dir.mkdir()
    (build.store_dir / "index.json").write_text("{}")
    with pytest.raises(LitMoEError, match=r"files that are not a token store of litmoe .index.json.; move"):
        build()
    assert (build.store_dir / "index.json").read_text() == "{}"


def test_worker_gets_the_name_not_the_tokens(build: Build) -> None:
    store = build()
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    assert np.array_equal(pickle.loads(pickled).tokens, store.tokens)


def test_two_stores_of_one_text_share_nothing(text_dir: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    write(text_dir / "c.txt", DOCUMENTS[:50])  # duplicates must stay in their split
    said: list[str] = []
    train, val = ensure_stores(
        text_dir, tmp_path / "val", tokenizer_dir, say=said.append, progress=False, val_fraction=0.2
    )
    sides = [decoded(store, tokenizer_dir) for store in (train, val)]
    assert sorted(sides[0] + sides[1]) == sorted(DOCUMENTS + DOCUMENTS[:50])
    assert not set(sides[0]) & set(sides[1]) and all(sides)
    # A caller who leaves the fraction out gets the stores as they are.
    again = ensure_stores(text_dir, tmp_path / "val", tokenizer_dir, say=said.append, progress=False)
    assert [store.fingerprint for store in again] == [train.fingerprint, val.fingerprint] and len(said) == 2
    # In another order, in other files: the same splits.
    other = tmp_path / "other"
    other.mkdir()
    write(other / "x.txt", DOCUMENTS[::-1])
    _, val2 = ensure_stores(
        other, tmp_path / "v", tokenizer_dir, say=said.append, progress=False, val_fraction=0.2
    )
    assert set(decoded(val2, tokenizer_dir)) == set(sides[1])


def test_one_document_cannot_be_split(tokenizer_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("only one")
    with pytest.raises(LitMoEError, match="only one document"):
        ensure_stores(tmp_path, tmp_path / "v", tokenizer_dir, say=print, progress=False)
    write(tmp_path / "x.txt", ["one", "two"])
    stores = ensure_stores(tmp_path, tmp_path / "v", tokenizer_dir, say=print, progress=False)
    assert [store.n_documents for store in stores] == [1, 1]


RUN = """
import sys, time
from pathlib import Path
from litmoe.data import encoding, token_store
text, tokenizer, store, mode = *map(Path, sys.argv[1:4]), sys.argv[4]
if mode == "hang":
    encoding.BATCH_BYTES = 1000
    write = encoding.Encoder._write
    def slow(self):
        write(self)
        if self._written:
            print("writing", flush=True)
            time.sleep(600)
    encoding.Encoder._write = slow
store = token_store.ensure_store(text, tokenizer, store, say=print, progress=False)
status = Path("/proc/self/status")  # (getrusage would count the memory of the process that forked us)
if status.exists():
    print("peak", status.read_text().split("VmHWM:")[1].split()[0])
print("torch", "torch" in sys.modules)
print(store.fingerprint)
"""


def command(build: Build, mode: str) -> list[str]:
    paths = [build.text_dir, build.tokenizer_dir, build.store_dir]
    return [sys.executable, "-c", RUN, *map(str, paths), mode]


def test_killed_build_leaves_nothing_and_the_next_succeeds(build: Build) -> None:
    with subprocess.Popen(command(build, "hang"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("writing" in line for line in iter(process.stdout.readline, ""))
        process.kill()
    assert (build.text_dir / ".train.building").exists()  # so it was killed in the middle
    assert not build.store_dir.exists()
    assert decoded(build(), build.tokenizer_dir) == DOCUMENTS
    assert not (build.text_dir / ".train.building").exists()


def test_processes_at_once_build_one_store(build: Build) -> None:
    processes = [subprocess.Popen(command(build, ""), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("store built" in output for output in outputs) == 1
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert all("torch False" in output for output in outputs)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_bounded(build: Build) -> None:
    """A text of 6 MB whose ids come one per byte stays far below a gigabyte."""
    digits = "".join(str(i) for i in range(1_000_000))
    (build.text_dir / "big.txt").write_text(digits)
    result = subprocess.run(command(build, ""), capture_output=True, text=True, check=True, timeout=200)
    peak = int(result.stdout.split("peak ")[1].split()[0])
    assert peak * 1024 < 500e6
    record = json.loads((build.store_dir / "store.json").read_text())
    assert record["n_tokens"] > 3_000_000
