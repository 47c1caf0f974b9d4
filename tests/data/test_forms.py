"""One text means the same in every form: plain, as records, compressed, in an archive, in another encoding."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litmoe.data.documents import END_OF_TEXT
from litmoe.data.reading.decoding import control_characters, encoding_of
from litmoe.data.reading.formats import read_documents
from litmoe.data.reading.notes import Notes
from litmoe.errors import DataError

patient = settings(deadline=None, max_examples=60)


def zstd(raw: bytes) -> bytes:
    return bytes(pa.compress(raw, codec="zstd", asbytes=True))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return file.getvalue()


def tarred(raw: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(raw)
        archive.addfile(entry, io.BytesIO(raw))
    return file.getvalue()


class Reader:
    """Writes a file and reads its documents back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, Notes()

    def __call__(self, name: str, content: bytes | str, **options: Any) -> list[str]:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.notes = Notes()
        documents, current = [], ""
        for piece in read_documents(path, notes=self.notes, **options):
            current += piece.text
            if piece.ends_document:
                documents.append(current)
                current = ""
        assert current == ""
        return documents

    def refused(self, message: str, name: str, content: bytes | str, **options: Any) -> None:
        with pytest.raises(DataError, match=message) as error:
            self(name, content, **options)
        assert "\n" not in str(error.value) and len(str(error.value)) < 600
        assert str(self.folder / name) in str(error.value)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


DOCUMENTS = ["One day.", f"He wrote {END_OF_TEXT} in a book.", "Grüße, 世界.\n\nThe end."]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()
FORMS = {
    ".jsonl": LINES,
    ".json": json.dumps([{"text": text} for text in DOCUMENTS], indent=1).encode(),
    ".parquet": parquet(pa.table({"text": DOCUMENTS})),
}


@pytest.mark.parametrize("codec", COMPRESS)
@pytest.mark.parametrize("form", FORMS)
def test_compressed_records_are_the_records(read: Reader, form: str, codec: str) -> None:
    """And they stay one document each, whatever they quote."""
    assert read(f"a{form}", FORMS[form]) == DOCUMENTS
    assert read(f"a{form}{codec}", COMPRESS[codec](FORMS[form])) == DOCUMENTS
    assert read(f"A{form}{codec}".upper(), COMPRESS[codec](FORMS[form])) == DOCUMENTS
    assert read.notes.lines() == []


@pytest.mark.parametrize("codec", COMPRESS)
def test_streams_that_follow_each_other(read: Reader, codec: str) -> None:
    compress = COMPRESS[codec]
    parts = [b"One\n<|endof", "text|>Tw\u00f6".encode()[:-1], "\u00f6".encode()[-1:]]
    assert read(f"a.txt{codec}", b"".join(map(compress, parts))) == ["One", "Tw\u00f6"]
    read.refused("damaged|cut off", f"b.txt{codec}", compress(b"One") + b"no such stream")


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_cut_archive_is_never_read_as_a_shorter_text(read: Reader, codec: str) -> None:
    whole = COMPRESS[codec](b"".join(b"Story %d. " % n for n in range(300)))
    for length in range(10, len(whole), 7):
        read.refused("cut off|damaged|not UTF-8", f"a.txt{codec}", whole[:length])


@pytest.mark.parametrize("codec", COMPRESS)
def test_compressed_under_a_plain_name_and_plain_under_a_compressed_one(read: Reader, codec: str) -> None:
    assert read("a.jsonl", COMPRESS[codec](LINES)) == DOCUMENTS
    assert "names do not say so" in read.notes.lines()[0]
    assert read(f"a.jsonl{codec}", LINES) == DOCUMENTS
    assert "names say so" in read.notes.lines()[0]


def test_compressed_in_compressed(read: Reader) -> None:
    twice = bz2.compress(gzip.compress(b"One"))
    assert read("a.txt.gz.bz2", twice) == ["One"]
    read.refused("compressed more than 3 times", "a.txt.gz", gzip.compress(gzip.compress(twice)))


def test_a_zip_is_its_text_files_in_the_order_of_their_names(read: Reader) -> None:
    members = {
        "b/two.TXT": b"Two a<|endoftext|>Two b",
        "a.jsonl.gz": gzip.compress(LINES),
        "c.parquet": FORMS[".parquet"],
        "readme.pdf": b"%PDF-1.4",
        "__MACOSX/._a.txt": b"\0\0",
    }
    assert read("all.zip", zipped(members)) == [*DOCUMENTS, "Two a", "Two b", *DOCUMENTS]
    left_out = sorted(read.notes.lines())
    assert left_out[0].startswith("files of other kinds in .zip archives, left out: 1, 8 bytes")
    assert left_out[1].startswith("hidden files in .zip archives, left out: 1, 2 bytes")
    assert read("named.txt", zipped({"a.txt": b"One"})) == ["One"]


def test_a_zip_of_many_files_is_opened_once(read: Reader) -> None:
    """Its directory is long: read again for every file of 3,000, it takes minutes."""
    start = time.monotonic()
    members = {f"{number:04}.txt": b"Story %d" % number for number in range(3000)}
    assert read("many.zip", zipped(members)) == [raw.decode() for raw in members.values()]
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", zipped({"a.pdf": b"%PDF"}), r"holds no .txt.* files \(but a.pdf\)"),
        ("a.zip", zipped({}), r"holds no .txt.* \(but nothing\)"),
        ("a.zip", zipped({"b.zip": b""}), r"\(but b.zip\)"),
        ("a.zip", zipped({"b.txt": b"text " * 999})[:-40], "damaged"),
        ("word.txt", zipped({"[Content_Types].xml": b"<Types/>"}), r"is a .zip that holds no .txt"),
        ("a.txt.gz", gzip.compress(zipped({"b.txt": b""})), "a .zip inside something compressed"),
        ("a.txt", tarred(b"text"), "is a tar archive"),
        ("a.tar.gz", gzip.compress(tarred(b"text")), "is a tar archive"),
        ("a.txt", b"%PDF-1.7\n", "is a PDF, not text"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.parquet", b"PAR1 and nothing more", "damaged or no Parquet"),
        ("a.txt.bz2", bz2.compress(b"caf\xe9"), "is not UTF-8: byte 0xe9 at offset 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives hold the time
)
def test_what_is_no_text_is_named(read: Reader, name: str, content: bytes, message: str) -> None:
    read.refused(message, name, content)


def test_an_encrypted_zip_is_named(read: Reader) -> None:
    raw = bytearray(zipped({"a.txt": b"secret"}))
    central = raw.index(b"PK\x01\x02")
    raw[6] |= 1  # the flag of encryption, in the member and in the directory
    raw[central + 8] |= 1
    read.refused("encrypted.*unpack it", "a.zip", bytes(raw))


@pytest.mark.parametrize("codec", COMPRESS)
def test_a_bomb_is_a_stream(tmp_path: Path, codec: str) -> None:
    """A gigabyte of a few letters: read in bounded memory, up to where the reader stops."""
    import tracemalloc

    path = tmp_path / f"bomb.txt{codec}"
    block = COMPRESS[codec](b"so it goes " * (3 << 20))
    path.write_bytes(block * 32)
    tracemalloc.start()
    size = 0
    for piece in read_documents(path):
        size += len(piece.text)
        if size > 2e7:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6


# --- encodings ---------------------------------------------------------------------------------------------------

PROSE = {
    "english": "The cat sat on the mat. It was 3 o'clock.\n",
    "russian": "Кошка сидела на ковре. Было 3 часа.\n",
    "chinese": "一只猫坐在垫子上。现在是三点钟了。我们在一起很高兴。大家都好。\n",
    "japanese": "猫はマットの上に座った。 三時だった。\r\n",
    "mixed": "Hello мир 你好 ünïcode 😀\n",
}


@pytest.mark.parametrize("language", PROSE)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["\ufeff", ""], ids=["mark", "no-mark"])
def test_utf_16_and_utf_32(read: Reader, language: str, encoding: str, mark: str) -> None:
    text = PROSE[language] * 40
    expected = text.replace("\r\n", "\n").strip()
    assert read("a.txt", (mark + text).encode(encoding)) == [expected]
    assert read.notes.lines() == [
        f"files in {encoding.upper()}, read as such: 1 (first: {read.folder / 'a.txt'})"
    ]
    record = json.dumps({"text": text}, ensure_ascii=False)
    assert read("a.jsonl", (mark + record).encode(encoding)) == [expected]
    assert read("a.jsonl.gz", gzip.compress((mark + record).encode(encoding))) == [expected]


@patient
@given(st.text(min_size=1, max_size=300), st.booleans())
def test_utf_8_is_never_taken_for_something_else(text: str, ascii_only: bool) -> None:
    raw = text.encode("ascii" if ascii_only else "utf-8", errors="ignore")
    if not raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        assert encoding_of(raw) == "utf-8" or raw.count(0) > len(raw) // 4


@pytest.mark.parametrize(
    "raw",
    [b"name\0value\0\0\0" * 300, b"abc\0def\0" * 500, os.urandom(4096), "café\0".encode("latin-1") * 300],
)
def test_zeros_among_other_bytes_are_not_utf_16(raw: bytes) -> None:
    assert encoding_of(raw) == "utf-8"


def test_half_a_character_of_utf_16_is_named(read: Reader) -> None:
    read.refused(
        "is not UTF-16-LE: byte 0x6c at offset 38", "a.txt", "Hello there you all".encode("utf-16")[:-1]
    )


@given(st.text(st.characters(max_codepoint=0x250)))
def test_control_characters_are_counted(text: str) -> None:
    expected = sum((ord(c) < 32 and c not in "\t\n\v\f\r") or ord(c) == 127 for c in text)
    assert control_characters(text.encode()) == expected


# --- records -----------------------------------------------------------------------------------------------------

OBJECT_A, OBJECT_B = '{"text": "a"}', '{"text": "b"}'


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    "content",
    [
        f"{OBJECT_A}\n{OBJECT_B}",
        f"\ufeff{OBJECT_A}\r\n\r\n{OBJECT_B}\r\n",
        f"{OBJECT_A}\r{OBJECT_B}",
        f"{OBJECT_A}\n\ufeff{OBJECT_B}",  # copy a+b
        f"{OBJECT_A}\ufeff{OBJECT_B}",  # the same, where a has no last line end
        f"{OBJECT_A}{OBJECT_B}",  # cat a b
        f"[{OBJECT_A}, {OBJECT_B}]",
        f"[\n  {OBJECT_A},\n\n  {OBJECT_B}\n]",
        f"[{OBJECT_A}]\n[{OBJECT_B}]",
        f"\n\n{OBJECT_A}\n \t\n{OBJECT_B}",
    ],
)
def test_ways_to_write_two_records(read: Reader, suffix: str, content: str) -> None:
    assert read(f"a{suffix}", content) == ["a", "b"]
    assert read.notes.lines() == []


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_records_without_text_are_counted(read: Reader, suffix: str) -> None:
    content = f'{OBJECT_A}\nnull\n{{"text": null}}\n{OBJECT_B}\nnull'
    assert read(f"a{suffix}", content) == ["a", "b"]
    assert read.notes.lines() == [
        f"records that are null, left out: 2 (first: {read.folder / f'a{suffix}'}, line 2)",
        f"records whose text is null, left out: 1 (first: {read.folder / f'a{suffix}'}, line 3)",
    ]


def test_dotted_fields(read: Reader) -> None:
    lines = '{"meta": {"text": "a", "x.y": 1}}\n{"meta": null}\n{"meta.text": "b", "meta": {"text": "no"}}'
    assert read("a.jsonl", lines, text_field="meta.text") == ["a", "b"]
    read.refused("has no 'meta.body', only the fields meta", "a.jsonl", lines, text_field="meta.body")
    table = pa.table({"meta": [{"text": "a", "n": 1}, None, {"text": "b", "n": 2}]})
    assert read("a.parquet", parquet(table), text_field="meta.text") == ["a", "b"]
    read.refused("has no 'meta.body'", "a.parquet", parquet(table), text_field="meta.body")
    read.refused("'meta.n' holds int64, not strings", "a.parquet", parquet(table), text_field="meta.n")
    both = table.append_column("meta.text", pa.array(["c", "d", "e"]))
    assert read("a.parquet", parquet(both), text_field="meta.text") == ["c", "d", "e"]


TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi!"},
    {"role": "assistant", "content": [{"type": "text", "text": "Hello."}, {"type": "image"}]},
    {"role": "tool", "content": None},
]


def test_conversations(read: Reader) -> None:
    """The message says what to do, and doing it works."""
    line = json.dumps({"messages": TURNS})
    read.refused("no 'text' but a conversation; --text-field messages", "a.jsonl", line)
    assert read("a.jsonl", line, text_field="messages") == ["user: Hi!\n\nassistant: Hello."]
    assert [note.split(" (")[0] for note in read.notes.lines()] == [
        "parts of conversations that are not text, left out: 1",
        "turns of conversations without text, left out: 1",
    ]
    old = json.dumps(
        {"conversations": [{"from": "human", "value": "Hi!"}, {"from": "gpt", "value": "Hello."}]}
    )
    read.refused("--text-field conversations", "a.jsonl", old)
    assert read("a.jsonl", old, text_field="conversations") == ["human: Hi!\n\ngpt: Hello."]
    table = pa.table({"messages": [[{"role": "user", "content": "Hi!"}], None]})
    read.refused("--text-field messages", "a.parquet", parquet(table))
    assert read("a.parquet", parquet(table), text_field="messages") == ["user: Hi!"]
    read.refused(
        "turn 1 has neither 'content' nor 'value', only q",
        "a.jsonl",
        '{"turns": [{"q": 1}]}',
        text_field="turns",
    )


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b"], pa.string()),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string()).cast(pa.string_view()),
        pa.array(["a", None, "b"], pa.string()).dictionary_encode(),
    ],
    ids=["string", "large", "view", "dictionary"],
)
def test_kinds_of_strings_in_parquet(read: Reader, column: pa.Array) -> None:
    assert read("a.parquet", parquet(pa.table({"text": column}))) == ["a", "b"]
    assert "records whose text is null, left out: 1" in read.notes.lines()[0]


def test_parquet_without_text(read: Reader) -> None:
    assert read("a.parquet", parquet(pa.table({"text": pa.nulls(3)}))) == []
    assert "left out: 3" in read.notes.lines()[0]
    assert read("a.parquet", parquet(pa.table({"text": pa.array([], pa.string())}))) == []
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    read.refused("has 2 columns 'text'", "a.parquet", parquet(twice))
    beside = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "n", "n"])
    assert read("a.parquet", parquet(beside)) == ["a"]


def test_messages_stay_short(read: Reader) -> None:
    names = {f"{'long ' * 1000}{n}": n for n in range(100)}
    read.refused("has no 'text'", "a.jsonl", json.dumps(names))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs"])) | st.just(f"a {END_OF_TEXT} b"), max_size=5),
    st.sampled_from(list(COMPRESS)),
)
def test_all_forms_agree(tmp_path_factory: pytest.TempPathFactory, texts: list[str], codec: str) -> None:
    read = Reader(tmp_path_factory.getbasetemp())
    lines = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    expected = read("d.jsonl", lines)
    assert read(f"e.jsonl{codec}", COMPRESS[codec](lines)) == expected
    assert read("f.parquet", parquet(pa.table({"text": pa.array(texts, pa.string())}))) == expected
    assert read("g.zip", zipped({"d.jsonl": lines})) == expected
    if lines:
        assert read("h.jsonl", lines.decode().encode("utf-16")) == expected
    assert len(expected) <= len(texts)  # no record became two
