"""A prepared data set as one set of files that can be sent and checked where it arrives.

The files keep their places below the data folder; the tokenizer is added as ``tokenizer/``. ``dataset.json``
lists size and SHA-256 of every file, the counts, and one fingerprint over it all.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from litmoe.data.corpus_record import RECORD
from litmoe.data.freshness import why_stale
from litmoe.data.reading.listing import has_text, list_text
from litmoe.data.store_record import OWN_FILES, STORE, portable, read_record
from litmoe.data.token_store import TokenStore
from litmoe.data.tokenizer import OWN_FILES as TOKENIZER_FILES
from litmoe.data.tokenizer import tokenizer_fingerprint
from litmoe.errors import DataError
from litmoe.messages import one_line, readable

DESCRIPTION = "dataset.json"
TOKENIZER = "tokenizer"
_FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """The files of a data set by their names in the bundle, and its description."""

    files: dict[str, Path]
    description: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A hash over the names, sizes and contents of all files."""
        return str(self.description["fingerprint"])


def bundle_of(data_dir: Path, tokenizer_dir: Path) -> Bundle:
    """The bundle of a prepared data folder, as it stands: nothing is tokenized.

    Raises:
        DataError: not prepared, changed since, or tokenized with another tokenizer.
    """
    splits: dict[str, Any] = {}
    files: dict[str, Path] = {}
    tokenizer = tokenizer_fingerprint(tokenizer_dir)
    for split in ("train", "val"):
        text_dir, store_dir = data_dir / split, data_dir / split / split
        store = TokenStore.open(store_dir)
        source_dir = text_dir if has_text(text_dir) else data_dir / "train"
        source = list_text(source_dir)
        record, _ = read_record(store_dir)
        assert record is not None  # it has just been opened
        if reason := why_stale(store_dir, record["made_from"] | {"tokenizer": tokenizer}, source):
            raise DataError(f"{store_dir} is out of date ({reason}): run litmoe prepare first")
        splits[split] = {
            "documents": store.n_documents,
            "tokens": store.n_tokens,
            "text_bytes": store.n_bytes,
            "store_fingerprint": store.fingerprint,
        }
        if source_dir == text_dir:
            files |= {f"{split}/{source.name(path)}": path for path in source.files}
        files |= {f"{split}/{split}/{name}": store_dir / name for name in sorted(OWN_FILES)}
    for name in sorted(TOKENIZER_FILES):
        if (tokenizer_dir / name).is_file():
            files[f"{TOKENIZER}/{name}"] = tokenizer_dir / name
    if (data_dir / RECORD).is_file():
        files[RECORD] = data_dir / RECORD
    listing = {name: _seen(path) for name, path in sorted(files.items())}
    description = {
        "format": _FORMAT,
        "fingerprint": _fingerprint(listing),
        "vocab_size": store.vocab_size,
        "tokenizer_fingerprint": tokenizer,
        **splits,
        "files": listing,
    }
    return Bundle(files, description)


def not_sent(data_dir: Path, bundle: Bundle) -> list[str]:
    """What lies below a data folder and is not in its bundle, in lines with names and sizes."""
    listing = list_text(data_dir)
    sent = {path.absolute() for path in bundle.files.values()}
    others = [path for path in listing.files if path.absolute() not in sent]
    lines = listing.lines()
    if others:
        size = readable(sum(path.stat().st_size for path in others))
        names = ", ".join(listing.name(path) for path in others[:3]) + (", ..." if len(others) > 3 else "")
        lines.append(f"{data_dir}: {len(others)} text files outside train/ and val/ ({names}), {size}")
    return lines


def check_bundle(folder: Path, fingerprint: str | None = None) -> dict[str, Any]:
    """The description of a bundle whose files are all there, and nothing else, as they were sent.

    Args:
        folder: where it lies.
        fingerprint: the one announced by whoever sent it; None: the one in its own description.

    Raises:
        DataError: not a bundle, a file is missing, changed, foreign or a link, or the fingerprint is another.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        listing = {
            str(n): {"size": int(f["size"]), "sha256": str(f["sha256"])}
            for n, f in description["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: not a data set of litmoe: {DESCRIPTION}: {one_line(error)}") from error
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    foreign = sorted(
        name for name in there - {DESCRIPTION, *listing} if not name.rpartition("/")[2].startswith(".")
    )
    if foreign:
        raise DataError(f"{folder}: {foreign[0]} is not a file of this data set")
    for name, seen in listing.items():
        path = folder / inside(name)
        if not path.is_file() or path.is_symlink():
            raise DataError(f"{folder}: {name} is missing")
        if _seen(path) != seen:
            raise DataError(f"{folder}: {name} is not the file that was sent: fetch the data set again")
    found = _fingerprint(listing)
    if found != description.get("fingerprint") or (fingerprint is not None and found != fingerprint):
        raise DataError(
            f"{folder}: the fingerprint does not match: this is not the data set that was announced"
        )
    return dict(description)


def inside(name: str) -> str:
    """A file's name that stays below the folder it is put in, on every system.

    Raises:
        DataError: it would lead out of it.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if not name or posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"the file name {name!r} leads out of the target folder: refused")
    return name


def _seen(path: Path) -> dict[str, Any]:
    """Size and hash of a file; of a store's record only what copying and reading do not change."""
    if path.name == STORE:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            content = json.dumps(portable(record), sort_keys=True, ensure_ascii=False).encode()
            return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        except (ValueError, KeyError, TypeError):  # not litmoe's record: then every byte counts
            pass
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _fingerprint(listing: dict[str, dict[str, Any]]) -> str:
    lines = (f"{seen['sha256']} {seen['size']} {name}" for name, seen in sorted(listing.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
