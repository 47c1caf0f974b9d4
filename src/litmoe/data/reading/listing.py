"""The text files of a folder: which are read, in which order, and what is left out and why.

Whatever reads text goes through here, so that a folder means the same as ``--source``, inside the data
folder, and for ``litmoe evaluate``. Files are found at any depth, in the order of their names, and their
endings in any case. Links are followed, each folder once. Hidden files and files of other kinds are left out
and named, with their sizes. Litmoe's own files (token stores, tokenizers, records, locks) are neither read
nor named.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from litmoe.data.reading.kinds import ALSO_COMPRESSED, SUFFIXES, has_text_name
from litmoe.errors import DataError
from litmoe.files import reason_of
from litmoe.messages import readable

HIDDEN, OTHER_KINDS = "hidden files", "files of other kinds"
BROKEN_LINKS, REPEATED_FOLDERS, SPECIAL = (
    "links that lead nowhere",
    "links to folders read already",
    "devices or pipes",
)

_SINGULAR = {
    HIDDEN: "hidden file",
    OTHER_KINDS: "file of other kinds",
    BROKEN_LINKS: "link that leads nowhere",
    REPEATED_FOLDERS: "link to a folder read already",
    SPECIAL: "device or pipe",
}
_OWN_HIDDEN = re.compile(
    r"\.(?:.*\.(?:lock|building|building-old|old)|preparing(?:-old)?|.*\.store\.json\.\d+)"
)
_OF_STORE, _OF_TOKENIZER = {"tokens.bin", "documents.bin", "store.json"}, "litmoe_tokenizer.json"
_OWN_RECORDS = {"corpus.json": b"litmoe prepare", "dataset.json": b'"store_fingerprint"'}
_MOST_NAMES = 3


@dataclass
class Listing:
    """What is in a folder, or a single file."""

    root: Path
    files: list[Path] = field(default_factory=list)
    """What is read, in order."""
    left_out: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)
    """Why something is left out -> what, and its bytes."""

    def name(self, path: Path) -> str:
        """A file's name in the folder: ``more/b.txt``."""
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    def lines(self) -> list[str]:
        """What is left out, a line for each reason."""
        return [self._line(reason, entries) for reason, entries in self.left_out.items()]

    def _line(self, reason: str, entries: list[tuple[Path, int]]) -> str:
        names = ", ".join(self.name(path) for path, _ in sorted(entries)[:_MOST_NAMES])
        names += ", ..." if len(entries) > _MOST_NAMES else ""
        what = _SINGULAR[reason] if len(entries) == 1 else reason
        size = sum(size for _, size in entries)
        how_much = f", {readable(size)}" if reason in (HIDDEN, OTHER_KINDS) else ""
        return f"{self.root}: left out {len(entries):,} {what} ({names}){how_much}"


def list_text(root: Path) -> Listing:
    """Find the text below a folder; or take a file that somebody named as it is.

    Raises:
        DataError: No such file or folder, or a folder or file without permission to read it.
    """
    listing = Listing(root)
    if root.is_file():
        listing.files.append(root)
        return listing
    if not root.is_dir():
        raise DataError(f"there is no file or folder {root}; check the name")
    walked: set[str] = set()
    links = _walk(root, listing, walked)
    while links:  # after the real folders, which keep their names if a link leads to them
        link = links.pop(0)
        target = os.path.realpath(link)
        if target in walked or Path(target) in root.resolve().parents:
            _leave_out(listing, REPEATED_FOLDERS, link, 0)
        else:
            links += _walk(link, listing, walked)
    listing.files.sort(key=lambda path: path.relative_to(root).parts)
    return listing


def is_own_folder(folder: Path) -> bool:
    """Whether litmoe made a folder: a token store, perhaps a damaged one, or a tokenizer."""
    names = {path.name for path in _entries(folder)}
    return (len(names & _OF_STORE) > 1 and names <= _OF_STORE) or _OF_TOKENIZER in names


def has_text(root: Path) -> bool:
    """Whether a folder holds any text at any depth.

    Raises:
        DataError: As :func:`list_text`, but for a folder that does not exist.
    """
    return root.is_dir() and bool(list_text(root).files)


def no_text(root: Path) -> str:
    """What a folder without text holds instead, to end a message with."""
    left_out = [path for entries in list_text(root).left_out.values() for path, _ in entries]
    names = ", ".join(sorted(path.name for path in left_out)[:_MOST_NAMES])
    found = f", only {names}" if names else ""
    return f"no {', '.join(SUFFIXES)} file in the folder {root} or below it, {ALSO_COMPRESSED}{found}"


def _walk(folder: Path, listing: Listing, walked: set[str]) -> list[Path]:
    """List a folder and the real folders below it; return the links to folders."""
    links: list[Path] = []
    folders = [folder]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in walked:
            continue
        walked.add(real)
        entries = _entries(folder)
        if is_own_folder(folder):
            continue
        for path in entries:
            if path.name.startswith("."):
                _hidden(listing, path)
            elif path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            else:
                _file(listing, path)
    return links


def _file(listing: Listing, path: Path) -> None:
    if path.is_symlink() and not path.exists():
        _leave_out(listing, BROKEN_LINKS, path, 0)
    elif not path.is_file():
        _leave_out(listing, SPECIAL, path, 0)
    elif not has_text_name(path.name):
        _leave_out(listing, OTHER_KINDS, path, path.stat().st_size)
    elif not _is_own_record(path):
        if not os.access(path, os.R_OK):
            raise DataError(f"cannot read {path}: permission denied; check its permissions, or move it away")
        listing.files.append(path)


def _hidden(listing: Listing, path: Path) -> None:
    """Count a hidden file, or all in a hidden folder."""
    if _OWN_HIDDEN.fullmatch(path.name):
        return
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            for name in names:
                _leave_out(listing, HIDDEN, Path(folder, name), _size(Path(folder, name)))
    else:
        _leave_out(listing, HIDDEN, path, _size(path))


def _leave_out(listing: Listing, reason: str, path: Path, size: int) -> None:
    listing.left_out.setdefault(reason, []).append((path, size))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot list {folder}: {reason_of(error)}; check its permissions, or move it away"
        ) from error


def _is_own_record(path: Path) -> bool:
    sign = _OWN_RECORDS.get(path.name)
    if sign is None:
        return False
    with path.open("rb") as file:
        return sign in file.read(4096)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
