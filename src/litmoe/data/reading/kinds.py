"""What a file holds: by its name, and by its first bytes where the name is wrong."""

from pathlib import PurePosixPath
from typing import Literal

Form = Literal["text", "json lines", "json", "parquet"]
Codec = Literal["gzip", "bz2", "xz", "zstd"]

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
READS = f"{', '.join(SUFFIXES)} files"
"""What litmoe reads, for messages."""
ALSO_COMPRESSED = f"also compressed ({', '.join(COMPRESSED)}) or in a .zip"

HEAD_BYTES = 4096
"""So much of a file's start is looked at."""

_FORMS: dict[str, Form] = dict(zip(SUFFIXES, ("text", "json lines", "json", "parquet"), strict=True))
# What stands beside data sets and models in folders from the hub; one that was named is read.
_ABOUT_DATA = {
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "generation_config.json",
    "metadata.json",
    "package.json",
    "special_tokens_map.json",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}
_NOT_TEXT = {".csv", ".tsv", ".html", ".htm", ".xml", ".arrow", ".feather", ".orc", ".avro", ".npy", ".bin"}

# Magic numbers, from the formats' specifications (a .bz2 is checked up to its first block).
_CODECS: tuple[tuple[bytes, Codec], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_FOREIGN = (
    (0, b"%PDF-", "a PDF"),
    (0, b"{\\rtf1", "an RTF document"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"ARROW1\0\0", "an Arrow file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF87a", "a GIF image"),
    (0, b"GIF89a", "a GIF image"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file"),
    (0, b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS (git lfs pull fetches the file)"),
)


def has_text_name(name: str) -> bool:
    """Whether a file found in a folder is read: ``a.txt``, ``b.JSONL.gz``, ``c.zip``."""
    return _bare_suffix(name) in (*SUFFIXES, ".zip") and name.lower() not in _ABOUT_DATA


def form_of(name: str) -> Form | None:
    """The form of a file that somebody named: by its suffix; plain text unless the suffix says otherwise.

    None for suffixes of what is not text (a .csv would need to know its column).
    """
    suffix = _bare_suffix(name)
    return None if suffix in _NOT_TEXT else _FORMS.get(suffix, "text")


def codec_of(head: bytes) -> Codec | None:
    """How data that begin with ``head`` are compressed."""
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bz2"
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:  # a frame to skip: pzstd begins with one
        return "zstd"
    return next((codec for magic, codec in _CODECS if head.startswith(magic)), None)


def is_zip(head: bytes) -> bool:
    """Whether data that begin with ``head`` are a .zip (the second magic number: of an empty one)."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_parquet(head: bytes) -> bool:
    """Whether data that begin with ``head`` are a Parquet file."""
    return head.startswith(b"PAR1")


def foreign_content(head: bytes) -> str | None:
    """What data that begin with ``head`` are, if that is nothing that litmoe reads."""
    return next((what for at, magic, what in _FOREIGN if head.startswith(magic, at)), None)


def bare_stem(name: str) -> str:
    """A name without its form and compression, in lower case: ``train`` of ``Train.jsonl.gz``."""
    return _uncompressed(name).stem


def _bare_suffix(name: str) -> str:
    return _uncompressed(name).suffix


def _uncompressed(name: str) -> PurePosixPath:
    path = PurePosixPath(name.lower())
    while path.suffix in COMPRESSED:
        path = path.with_suffix("")
    return path
