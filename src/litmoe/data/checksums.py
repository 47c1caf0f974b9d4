"""Is a file still what it was? By its state on the disk first, by its bytes where that is in doubt.

The state is what Git looks at: size, time of modification, inode, and time of change, which the system sets and
nobody can set back. Windows has no time of change (Python reports the time of creation there), nor have FAT and
some network disks, so a few blocks are compared at every look too, whatever the state says.
"""

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHUNK_BYTES = 16 << 20
"""Bytes of a token store under one checksum: 7 MB of checksums for a store of 6 TB."""

CHUNKS_PER_LOOK = 4
"""Chunks compared when the state of a store is as recorded: 64 MB, a twentieth of a second from memory."""

BLOCK_BYTES = 4096
BLOCKS_PER_FILE = 8
"""Blocks of a source file under a checksum each: the first, the last, and others evenly between."""

BLOCKS_PER_LOOK = 64
"""Blocks compared at one look over all files, however many there are: half a second on a disk that turns."""

_RANDOM = random.SystemRandom()  # other places each time, without touching the random numbers of a run


def state_of(path: Path) -> dict[str, int]:
    """What tells a file that was changed, replaced or renamed from one that was left alone, besides its size.

    Raises:
        OSError: There is no such file.
    """
    stat = path.stat()
    return {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns, "inode": stat.st_ino}


def differing(recorded: dict[str, Any], state: dict[str, int]) -> set[str]:
    """In what a state is not the recorded one. A recorded None says that this one is not to be relied on here."""
    return {key for key, value in state.items() if recorded.get(key, "unknown") not in (value, None)}


def settled(recorded: dict[str, Any], state: dict[str, int]) -> dict[str, int | None]:
    """The state to record of a file that turned out to be unchanged.

    If nothing but its inode was another, this disk numbers its files anew at every start, as some network disks
    do.
    """
    unreliable = recorded.get("inode", "unknown") is None or differing(recorded, state) == {"inode"}
    return state | {"inode": None} if unreliable else dict(state)


class ChunkHashes:
    """The checksum of every ``CHUNK_BYTES`` of a file, taken while its bytes pass by."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._current, self._room = hashlib.sha256(), CHUNK_BYTES

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        while len(data) >= self._room:
            self._current.update(data[: self._room])
            self._done.append(_short(self._current.hexdigest()))
            data = data[self._room :]
            self._current, self._room = hashlib.sha256(), CHUNK_BYTES
        self._current.update(data)
        self._room -= len(data)

    def digests(self) -> list[str]:
        """A checksum for every chunk so far; the last one may be shorter."""
        return self._done + ([_short(self._current.hexdigest())] if self._room < CHUNK_BYTES else [])


def damaged_chunk(path: Path, digests: list[str], everything: bool) -> int | None:
    """The number of a chunk that differs from its checksum; None if none was found.

    Args:
        path: The file.
        digests: A checksum per chunk.
        everything: Compare all chunks; else ``CHUNKS_PER_LOOK`` of them, others each time.
    """
    numbers: Iterable[int] = range(len(digests))
    if not everything:
        numbers = _RANDOM.sample(range(len(digests)), min(CHUNKS_PER_LOOK, len(digests)))
    with path.open("rb") as file:
        for number in numbers:
            file.seek(number * CHUNK_BYTES)
            if _short(hashlib.sha256(file.read(CHUNK_BYTES)).hexdigest()) != digests[number]:
                return number
    return None


def block_hashes(path: Path, numbers: Iterable[int] = range(BLOCKS_PER_FILE)) -> list[str]:
    """The checksums of some of the ``BLOCKS_PER_FILE`` blocks of a file, which overlap where it is small."""
    hashes = []
    with path.open("rb") as file:
        last = max(0, file.seek(0, 2) - BLOCK_BYTES)
        for number in numbers:
            file.seek(last * number // (BLOCKS_PER_FILE - 1))
            hashes.append(_short(hashlib.sha256(file.read(BLOCK_BYTES)).hexdigest()))
    return hashes


def some_blocks(n_files: int) -> dict[int, list[int]]:
    """Which blocks to compare this time: file -> blocks, ``BLOCKS_PER_LOOK`` in all at most."""
    files = _RANDOM.sample(range(n_files), min(n_files, BLOCKS_PER_LOOK))
    each = min(BLOCKS_PER_FILE, BLOCKS_PER_LOOK // max(1, len(files)))
    return {file: _RANDOM.sample(range(BLOCKS_PER_FILE), each) for file in files}


def _short(digest: str) -> str:
    return digest[:16]
