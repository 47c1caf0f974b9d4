"""The record of a token store, ``store.json``: its counts, what it was made from, and what its files looked
like."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from litmoe.data.checksums import CHUNK_BYTES

TOKENS, DOCUMENTS, STORE = "tokens.bin", "documents.bin", "store.json"
OWN_FILES = frozenset((TOKENS, DOCUMENTS, STORE))
COUNTS = ("n_documents", "n_tokens", "n_bytes", "eos_id", "vocab_size")
FILE_KEYS = ("name", "size", "mtime_ns", "seen_ns", "sha256")
"""What is known of every source file. Files that were read by version 0.2 or later have ``ctime_ns``, ``inode``
and ``blocks`` too."""

CHECKS = "checks"
"""File name -> its ``state`` and the checksums of its ``chunks``; absent where version 0.1.0 made the store."""

DTYPES = ("<u2", "<u4")


def dump(record: dict[str, Any]) -> str:
    """The text of ``store.json``."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def read_record(directory: Path) -> tuple[dict[str, Any] | None, str]:
    """Read ``store.json`` and compare it with the sizes of the files beside it.

    Returns:
        The record and an empty string; or None and what is wrong.
    """
    if not directory.is_dir():
        return None, "the folder does not exist"
    if not (directory / STORE).is_file():
        return None, f"it has no {STORE}"
    try:
        record = json.loads((directory / STORE).read_text(encoding="utf-8"))
        complete = _is_complete(record)
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


def update_record(directory: Path, record: dict[str, Any]) -> None:
    """Replace ``store.json`` where that is possible: a read-only disk, or a reader on Windows, may refuse."""
    new = _beside(directory)
    with contextlib.suppress(OSError):
        try:
            new.write_text(dump(record), encoding="utf-8", newline="\n")
            new.replace(directory / STORE)
        finally:
            new.unlink(missing_ok=True)


def distrust(directory: Path) -> None:
    """Have all of a store compared with its checksums at the next look."""
    record, _ = read_record(directory)
    if record is not None and CHECKS in record:
        for check in record[CHECKS].values():
            check["state"] = {}
        update_record(directory, record)


def disk_time_ns(directory: Path) -> int | None:
    """The present time by the clock of the store's disk; None where nothing can be written."""
    probe = _beside(directory)
    with contextlib.suppress(OSError):
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime_ns
        finally:
            probe.unlink(missing_ok=True)
    return None


def portable(record: dict[str, Any]) -> dict[str, Any]:
    """What of a record is the same for the same store on every disk, looked at or not."""
    files = [{key: entry[key] for key in ("name", "size", "sha256")} for entry in record["files"]]
    return {key: value for key, value in record.items() if key != CHECKS} | {"files": files}


def _is_complete(record: dict[str, Any]) -> bool:
    complete = all(type(record[key]) is int and record[key] >= 0 for key in COUNTS)
    complete = complete and record["dtype"] in DTYPES and isinstance(record["fingerprint"], str)
    complete = complete and isinstance(record["made_from"], dict) and isinstance(record["files"], list)
    complete = complete and record["n_documents"] > 0
    complete = complete and all(key in entry for entry in record["files"] for key in FILE_KEYS)
    for name in (TOKENS, DOCUMENTS) if CHECKS in record else ():
        size = record["n_tokens"] * np.dtype(record["dtype"]).itemsize
        size = size if name == TOKENS else (record["n_documents"] + 1) * 8
        complete = complete and len(record[CHECKS][name]["chunks"]) == -(-size // CHUNK_BYTES)
        complete = complete and isinstance(record[CHECKS][name]["state"], dict)
    return complete


def _beside(directory: Path) -> Path:
    return directory.parent / f".{directory.name}.{STORE}.{os.getpid()}"
