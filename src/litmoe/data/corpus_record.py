"""``corpus.json``: what prepare wrote into a data folder, from which request and which files.

It is what tells prepare's files from a user's own, which are never changed.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litmoe.config import PrepareConfig
from litmoe.data.checksums import block_hashes, differing, state_of
from litmoe.data.corpus import Source
from litmoe.data.reading.listing import list_text
from litmoe.errors import DataError

RECORD = "corpus.json"
SPLITS = ("train", "val")

_WRITTEN = re.compile(r"(?:train|val)/shard-\d{5,}\.(?:txt|jsonl)")


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a record; None if there is none.

    Raises:
        DataError: It is damaged, or names files that prepare does not write.
    """
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        named = all(_WRITTEN.fullmatch(entry["name"]) for entry in record["files"])
        if named and all(key in record for key in ("request", "inputs")):
            if "split" in record["request"]:  # its name in version 0.1.0
                record["request"]["document_boundaries"] = record["request"].pop("split")
            return dict(record)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise DataError(
        f"{path} is damaged, so prepare cannot tell its files from yours; remove it and the text beside it, or "
        "give another --data-dir"
    )


def request_of(config: PrepareConfig) -> dict[str, Any]:
    """The settings that decide the text. Paths absolute: the same name elsewhere is another source."""
    builtin = ("sample", "tinystories")
    return {
        "source": [name if name in builtin else Path(name).resolve().as_posix() for name in config.source],
        "document_boundaries": config.document_boundaries,
        "text_field": config.text_field,
        "val_fraction": config.val_fraction,
        "max_documents": config.max_documents,
        "seed": config.seed if "sample" in config.source else None,
    }


def inputs_of(sources: list[Source]) -> list[dict[str, Any]]:
    """What the files of the sources look like now: size, state, and checksums of a few blocks.

    Raises:
        DataError: One of them cannot be read.
    """
    try:
        return [_input(path) for source in sources for path in source.files]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from error


def difference(record: dict[str, Any], request: dict[str, Any], inputs: list[dict[str, Any]]) -> str | None:
    """What distinguishes the recorded request from this one, in words; None if nothing does."""
    for key, value in request.items():
        if (old := record["request"].get(key)) != value:
            return f"{key} was {old}, now {value}"
    before = {entry["path"]: entry for entry in record["inputs"]}
    for entry in inputs:
        if _changed(before.pop(entry["path"], None), entry):
            return f"{entry['path']} changed since"
    return f"{next(iter(before))} is gone since" if before else None


def text_fingerprint(data_dir: Path) -> str:
    """A hash of the training text, that of recorded files which are lost included.

    Reads the text only where the record does not have its hash already.
    """
    record = read_record(data_dir / RECORD)
    known = {entry["name"]: entry for entry in record["files"]} if record else {}
    digests = {name: entry["sha256"] for name, entry in known.items() if name.startswith("train/")}
    for name, path in texts_in(data_dir):
        entry = known.get(name)
        if name.startswith("train/") and (entry is None or entry["size"] != path.stat().st_size):
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def texts_in(data_dir: Path) -> Iterator[tuple[str, Path]]:
    """The text files of both splits, with their names in the data folder: ``train/more/b.txt``."""
    for split in SPLITS:
        if (data_dir / split).is_dir():
            listing = list_text(data_dir / split)
            yield from ((f"{split}/{listing.name(path)}", path) for path in listing.files)


def _input(path: Path) -> dict[str, Any]:
    entry = {"path": path.resolve().as_posix(), "size": path.stat().st_size}
    return entry | state_of(path) | {"blocks": block_hashes(path)}


def _changed(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    """Whether a file is another than it was.

    One of the same size and time may have been exchanged or written over: its blocks tell, if its inode or time of
    change is another. Version 0.1.0 recorded neither.
    """
    if old is None or (old["size"], old["mtime_ns"]) != (new["size"], new["mtime_ns"]):
        return True
    state = {key: new[key] for key in ("ctime_ns", "inode")}
    return "blocks" in old and bool(differing(old, state)) and old["blocks"] != new["blocks"]
