"""Documents come in whole, in order and in bounded memory, or with an error that says where and what."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hub import REVISION, serving

from litmoe.config import PrepareConfig
from litmoe.data.corpus import open_sources, tiny_stories
from litmoe.data.documents import (
    END_OF_TEXT,
    Piece,
    document_key,
    documents_in,
    validation_limit,
)
from litmoe.data.reading.formats import read_documents, read_text
from litmoe.errors import LitMoEError

patient = settings(
    deadline=None, max_examples=60
)  # first calls import libraries, on machines that may be busy

# Text rich in what matters here: separators and their fragments, white space, letters, other scripts.
texts = st.lists(
    st.one_of(
        st.sampled_from(
            [END_OF_TEXT, "<|end", "oftext|>", " ", "\n", "\n\n", "a b", "don't", "12", "你好。", "é"]
        ),
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=8),
    ),
    max_size=30,
).map("".join)


def chunks_of(text: str, sizes: list[int]) -> Iterable[str]:
    position = 0
    while position < len(text):
        size = sizes[position % len(sizes)]
        yield text[position : position + size]
        position += size


def joined(pieces: Iterable[Piece]) -> list[str]:
    documents, current = [], ""
    for piece in pieces:
        current += piece.text
        if piece.ends_document:
            documents.append(current)
            current = ""
    assert current == ""
    return documents


def clean(text: str) -> str:
    while (stripped := text.strip()).startswith("\ufeff"):
        text = stripped[1:]
    return stripped


def test_split_example() -> None:
    text = f" one\n{END_OF_TEXT}\n{END_OF_TEXT}two \n\n three"
    assert joined(documents_in([text])) == ["one", "two \n\n three"]
    assert joined(documents_in([text], "blank-line")) == ["one", "two", "three"]
    assert joined(documents_in([text], "file")) == ["one\n\n\n\ntwo \n\n three"]


@patient
@given(texts, st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_split_does_not_depend_on_chunks(text: str, sizes: list[int]) -> None:
    expected = [document for part in text.split(END_OF_TEXT) if (document := clean(part))]
    assert joined(documents_in(chunks_of(text, sizes))) == expected
    for mode in ("blank-line", "file"):
        whole = joined(documents_in([text], mode))
        assert joined(documents_in(chunks_of(text, sizes), mode)) == whole
        assert all(document == clean(document) != "" for document in whole)


words = st.lists(
    st.sampled_from(["Once", "upon", "don't", "été", "x1", "7", "(a)", "\n", "\n\n", "日本。", "—"]),
    min_size=1,
)


@patient
@given(words.map(" ".join), st.integers(8, 40), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_cut_pieces_add_up(text: str, size: int, sizes: list[int]) -> None:
    pieces = list(documents_in(chunks_of(text, sizes), piece_characters=size))
    assert joined(pieces) == ([clean(text)] if clean(text) else [])
    assert all(len(piece.text) <= 2 * size for piece in pieces)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# Between the random parts there is always a place where a cut is safe, as in any language with spaces.
prose = st.lists(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=12).map(
        lambda noise: noise + "word and word\nnext word "
    ),
    min_size=1,
    max_size=12,
).map("".join)


@pytest.mark.parametrize("pattern", [GPT2, LLAMA3], ids=["gpt2", "llama3"])
@patient
@given(text=prose)
def test_cuts_fall_between_words(pattern: str, text: str) -> None:
    """The words of the pieces, by the tokenizers' own regular expressions, are the words of the whole."""
    splitter = hf.pre_tokenizers.Split(hf.Regex(pattern), "isolated")
    pieces = list(documents_in([text], piece_characters=64))
    words = [word for piece in pieces for word, _ in splitter.pre_tokenize_str(piece.text)]
    assert words == [word for word, _ in splitter.pre_tokenize_str("".join(piece.text for piece in pieces))]


@patient
@given(texts.map(lambda text: text.encode()))
def test_text_file_is_read_strictly(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "strict.txt"
    path.write_bytes(raw)
    assert "".join(read_text(path)) == raw.decode()
    path.write_bytes(raw + b"\xff and more")
    with pytest.raises(LitMoEError, match=rf"strict.txt is not UTF-8: byte 0xff at offset {len(raw)};"):
        list(read_text(path))


def test_offset_of_a_bad_byte_beyond_the_first_chunk(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes("é".encode() * 200_001 + b"x\xe9")
    with pytest.raises(LitMoEError, match="offset 400003;"):
        list(read_text(path))


def test_newlines_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc" + f"\r\n{END_OF_TEXT}\r\nd".encode())
    assert joined(read_documents(path)) == ["a\nb\nc", "d"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"])), max_size=6), st.booleans())
def test_json_lines_json_and_parquet_agree(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], ascii_only: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rows = [{"id": 1, "text": document} for document in documents]
    lines, array, table = folder / "d.jsonl", folder / "d.json", folder / "d.parquet"
    lines.write_text("\n\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows), encoding="utf-8")
    array.write_text(json.dumps(rows, indent=2, ensure_ascii=ascii_only), encoding="utf-8")
    pq.write_table(pa.table({"text": pa.array(documents, pa.string())}), table, row_group_size=2)
    expected = [
        text for document in documents if (text := clean(document.replace("\r\n", "\n").replace("\r", "\n")))
    ]
    for path in (lines, array, table):
        assert joined(read_documents(path)) == expected, path.name


def test_json_with_an_object_per_line(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    long = "word " * 3000
    path.write_text(f'{{"story": "{long}"}}\n{{"story": "b"}}\n', encoding="utf-8")
    assert joined(read_documents(path, text_field="story")) == [long.strip(), "b"]
    path.write_text('{\n "story": "alone"\n}', encoding="utf-8")
    assert joined(read_documents(path, text_field="story")) == ["alone"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'\n{"body": "x", "id": 1}', "line 2 has no 'text', only the fields body, id;"),
        ("a.jsonl", b'["x"]', "line 1 is not an object"),
        ("a.jsonl", b'{"text": 3}', "'text' is not a string but int"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}', "offset 24 .line 2."),
        ("a.jsonl", b'{"text": "\\ud800"}', "half a surrogate pair"),
        ("a.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("a.json", b'[{"text": "x"},\n{"text": }]', "a.json, line 2 is not JSON"),
        ("a.json", b'[{"text": "x"},{}]', r"entry 2 has no 'text', only the fields \(none\)"),
        ("a.parquet", b"no parquet", "damaged or no Parquet"),
        ("a.parquet", b"", "damaged or no Parquet"),
        ("a.csv", b"text\nx", "cannot read .*a.csv: litmoe reads .txt, .jsonl, .json, .parquet files"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LitMoEError, match=message) as error:
        list(read_documents(path))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_bad_parquet_columns_and_cut_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "text": [[1]]}), path)
    with pytest.raises(LitMoEError, match="has no 'story', only the columns body, text"):
        list(read_documents(path, text_field="story"))
    with pytest.raises(LitMoEError, match=r"holds list<.*>, not strings"):
        list(read_documents(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LitMoEError, match="damaged"):
        list(read_documents(path, text_field="body"))


def test_folder_is_read_in_order_and_recursively(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "first"}', encoding="utf-8")
    (tmp_path / "c.TXT").write_text("third", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("never", encoding="utf-8")
    (tmp_path / "README.md").write_text("never", encoding="utf-8")
    [source] = open_sources(PrepareConfig(source=[str(tmp_path)]))
    [part] = source.parts
    assert part.split is None
    assert joined(part.read()) == joined(part.read()) == ["first", "second", "third"]
    assert any("left out 1 file of other kinds (README.md), 5 bytes" in note for note in source.notes)


@pytest.mark.parametrize("names", [("train.txt", "val.txt"), ("train/x.txt", "validation/x.txt")])
def test_folder_with_its_own_split(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    [source] = open_sources(PrepareConfig(source=[str(tmp_path)]))
    assert {part.split: joined(part.read()) for part in source.parts} == {
        "train": [names[0]],
        "val": [names[1]],
    }
    (tmp_path / "other.txt").write_text("no side", encoding="utf-8")
    [source] = open_sources(PrepareConfig(source=[str(tmp_path)]))
    assert [part.split for part in source.parts] == [None]


def test_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match=r"there is no file or folder .*nowhere"):
        open_sources(PrepareConfig(source=[str(tmp_path / "nowhere")]))
    with pytest.raises(LitMoEError, match=r"no .txt, .jsonl, .json, .parquet file in the folder"):
        open_sources(PrepareConfig(source=[str(tmp_path)]))
    (tmp_path / "x.csv").touch()
    with pytest.raises(LitMoEError, match=r"cannot read .*x.csv"):
        open_sources(PrepareConfig(source=[str(tmp_path / "x.csv")]))


def test_tiny_stories_from_a_folder_like_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    for shard in range(2):
        table = pa.table({"text": [f" story {shard} a\r\n", f"story {shard} b"]})
        pq.write_table(table, folder / f"train-0000{shard}-of-00002-abc.parquet")
    pq.write_table(pa.table({"text": ["held out"]}), folder / "validation-00000-of-00001-abc.parquet")
    source = tiny_stories(str(tmp_path / "hub"))
    read = {part.split: joined(part.read()) for part in source.parts}
    assert read == {"train": ["story 0 a", "story 0 b", "story 1 a", "story 1 b"], "val": ["held out"]}
    assert source.origin["licence"] == "CDLA-Sharing-1.0"
    missing = tiny_stories(str(tmp_path / "nothing"))
    with pytest.raises(LitMoEError, match="use --source sample") as error:
        next(missing.parts[0].read())
    assert "\n" not in str(error.value)


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path, plain_python: str) -> None:
    """`prepare --source tinystories`, killed in the middle of the second file, and once more."""
    folder = tmp_path / "hub" / "data"
    folder.mkdir(parents=True)
    chance = Random(0)
    words = [f"story {i} " + "".join(chance.choices("abcdefgh ", k=100)) for i in range(60)]
    big = [chance.randbytes(600_000) for _ in range(30)]  # the library writes pieces of 10 MB
    for shard in range(2):
        table = pa.table({"text": words[shard::2], "more": big if shard == 0 else [b""] * 30})
        pq.write_table(table, folder / f"train-0000{shard}-of-00002-abc.parquet", compression="none")
    pq.write_table(pa.table({"text": ["held out"]}), folder / "validation-00000-of-00001-abc.parquet")
    names = ["validation-00000-of-00001-abc", "train-00000-of-00002-abc", "train-00001-of-00002-abc"]
    names = [f"data/{name}.parquet" for name in names]
    command = [plain_python, "-m", "litmoe", "prepare", "--source", "tinystories", "--data-dir", "data"]
    command += ["--tokenizer", "train", "--vocab-size", "300", "--tokenizer-dir", "tokenizer"]

    cache = tmp_path / "cache"
    with serving(tmp_path / "hub", "roneneldan/TinyStories") as hub:
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache)}
        hub.stall_after = 12_000_000
        with subprocess.Popen(command, cwd=tmp_path, env=env) as killed:
            end = time.monotonic() + 120
            while sum(path.stat().st_size for path in cache.rglob("*.incomplete")) < 10_000_000:
                assert killed.poll() is None and time.monotonic() < end
                time.sleep(0.05)
            killed.kill()
        assert hub.sent == [(names[0], 0), (names[1], 0)]
        hub.stall_after, hub.sent = None, []
        subprocess.run(command, cwd=tmp_path, env=env, check=True, timeout=120)
        (name, first), *rest = hub.sent
        assert (name, rest) == (names[1], [(names[2], 0)])
        assert 10_000_000 <= first <= 12_000_000
    record = json.loads((tmp_path / "data" / "corpus.json").read_text(encoding="utf-8"))
    origin = record["origins"]["tinystories"]
    assert (origin["revision"], origin["licence"]) == (REVISION, "CDLA-Sharing-1.0")
    assert (record["train"]["documents"], record["val"]["documents"]) == (60, 1)


@patient
@given(st.sets(st.text(min_size=1, max_size=5), min_size=2), st.floats(0.001, 0.999), st.randoms())
def test_hash_split_has_two_sides_and_no_order(documents: set[str], fraction: float, random: object) -> None:
    keys = [document_key(document) for document in documents if document.rstrip()]
    limit = validation_limit(keys, fraction)
    shuffled = sorted(keys, key=lambda key: hash((key, str(random))))
    assert validation_limit(shuffled, fraction) == limit
    if len(set(keys)) < 2:
        assert limit is None
    else:
        assert limit is not None and any(key < limit for key in keys) and any(key >= limit for key in keys)


def test_hash_split_takes_the_fraction() -> None:
    keys = [document_key(f"document {i}") for i in range(20_000)]
    limit = validation_limit(keys, 0.05)
    assert limit is not None
    assert abs(sum(key < limit for key in keys) / 20_000 - 0.05) < 0.01


MEASURE = """
import sys, tracemalloc
from pathlib import Path
from litmoe.data.reading.formats import read_documents
tracemalloc.start()
size = sum(len(piece.text) for piece in read_documents(Path(sys.argv[1])))
print(size, tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.parametrize("separator", ["", END_OF_TEXT])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "big.txt"
    block = "Once upon a time there was a very long document. " * 1300 + separator
    with path.open("w", encoding="utf-8") as file:
        for _ in range(1000):
            file.write(block)
    assert path.stat().st_size > 60e6
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    size, peak = map(int, result.stdout.split())
    assert size > 60e6
    assert peak < 8e6
