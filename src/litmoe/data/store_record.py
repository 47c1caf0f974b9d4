"""What a token store was made from, and whether that is still what lies there.

Git's rule: a file whose size and time of change are as recorded is unchanged, unless it was so young when it
was read that a later change could bear the same time; then, and whenever the time differs, the content
decides. A copied or touched file is thus read once more, and trusted again from then on.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

TOKENS, DOCUMENTS, STORE = "tokens.bin", "documents.bin", "store.json"
OWN_FILES = frozenset((TOKENS, DOCUMENTS, STORE))
COUNTS = ("n_documents", "n_tokens", "n_bytes", "eos_id", "vocab_size")
FILE_KEYS = ("name", "size", "mtime_ns", "seen_ns", "sha256")

DTYPES = ("<u2", "<u4")

_RACY_NS = 2_000_000_000  # the coarsest time stamps in use (FAT) step by two seconds


def why_stale(store_dir: Path, wanted: dict[str, Any], files: list[Path]) -> str | None:
    """None if the store can be reused; else why not, in words, empty if there simply is none yet."""
    if not store_dir.exists() or not any(store_dir.iterdir()):
        return ""
    record, fault = read_record(store_dir)
    if record is None:
        return fault
    made_from = record["made_from"]
    for key, words in (
        ("format", "it was written by another version of litmoe"),
        ("tokenizer", "the tokenizer changed"),
        ("split", "the rule for where documents end changed"),
        ("part", "the rule for splitting off validation text changed"),
    ):
        if made_from.get(key) != wanted[key]:
            return words
    old = {entry["name"]: entry for entry in record["files"]}
    doubtful = []
    for path in files:
        entry = old.pop(path.name, None)
        if entry is None:
            return f"{path.name} is new"
        stat = path.stat()
        if stat.st_size != entry["size"]:
            return f"{path.name} changed"
        if stat.st_mtime_ns != entry["mtime_ns"] or stat.st_mtime_ns >= entry["seen_ns"] - _RACY_NS:
            doubtful.append((path, entry))
    if old:
        return f"{next(iter(old))} is gone"
    return _compare_content(store_dir, record, doubtful) if doubtful else None


def _compare_content(
    store_dir: Path, record: dict[str, Any], doubtful: list[tuple[Path, dict[str, Any]]]
) -> str | None:
    """Compare by hash, and record what was seen, so that it need not be read again next time."""
    new = store_dir.parent / f".{store_dir.name}.{STORE}.{os.getpid()}"
    try:
        new.write_bytes(b"")
        seen_ns: int | None = new.stat().st_mtime_ns  # by the disk's clock, before reading
    except OSError:
        seen_ns = None  # a read-only disk: compare every time
    for path, entry in doubtful:
        mtime_ns = path.stat().st_mtime_ns
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                new.unlink(missing_ok=True)
                return f"{path.name} changed"
        entry |= {"mtime_ns": mtime_ns, "seen_ns": seen_ns}
    if seen_ns is not None:
        try:
            new.write_text(dump(record), encoding="utf-8", newline="\n")
            new.replace(store_dir / STORE)
        except OSError:  # a reader on Windows has it open: compare again next time
            new.unlink(missing_ok=True)
    return None


def dump(record: dict[str, Any]) -> str:
    """The text of ``store.json``."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def read_record(directory: Path) -> tuple[dict[str, Any] | None, str]:
    """Read ``store.json`` and check it against the files beside it; return it, or None and what is wrong."""
    if not directory.is_dir():
        return None, "the folder does not exist"
    if not (directory / STORE).is_file():
        return None, f"it has no {STORE}"
    try:
        record = json.loads((directory / STORE).read_text(encoding="utf-8"))
        complete = all(type(record[key]) is int and record[key] >= 0 for key in COUNTS)
        complete = complete and record["dtype"] in DTYPES and isinstance(record["fingerprint"], str)
        complete = complete and "made_from" in record and isinstance(record["files"], list)
        complete = complete and record["n_documents"] > 0 and isinstance(record["made_from"], dict)
        complete = complete and all(key in entry for entry in record["files"] for key in FILE_KEYS)
    except (OSError, ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        return None, f"{STORE} is damaged"
    expected = {
        TOKENS: record["n_tokens"] * np.dtype(record["dtype"]).itemsize,
        DOCUMENTS: (record["n_documents"] + 1) * 8,
    }
    for name, size in expected.items():
        path = directory / name
        if not path.is_file():
            return None, f"{name} is missing"
        if path.stat().st_size != size:
            return None, f"{name} is damaged ({path.stat().st_size:,} bytes instead of {size:,})"
    offsets = np.memmap(directory / DOCUMENTS, dtype="<i8", mode="r")
    ends = int(offsets[0]), int(offsets[-1])
    return (record, "") if ends == (0, record["n_tokens"]) else (None, f"{DOCUMENTS} is damaged")
