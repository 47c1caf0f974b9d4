"""Whether a token store is still that of its text, and still whole: from a few looks where nothing was touched.

A source file is trusted unread while size and state are as recorded, unless it was so young when it was read
that a later change could bear the same times. Otherwise its content decides, once: a copied, touched or freshly
checked out file is trusted again from then on. The store's own files are compared with their checksums by the
same rule. Some blocks and chunks are compared every time, which finds what leaves no trace in a file's state.

Records of version 0.1.0 have neither states nor checksums; they get them at the first look, and stay valid.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from litmoe.data.checksums import (
    CHUNK_BYTES,
    ChunkHashes,
    block_hashes,
    damaged_chunk,
    differing,
    settled,
    some_blocks,
    state_of,
)
from litmoe.data.reading.listing import Listing
from litmoe.data.store_record import (
    CHECKS,
    DOCUMENTS,
    TOKENS,
    disk_time_ns,
    read_record,
    update_record,
)
from litmoe.messages import Say, readable, silent

_RACY_NS = 2_000_000_000  # the coarsest time stamps in use (FAT) step by two seconds
_LONG_BYTES = 1 << 30  # reading more than this takes long enough to be announced

_Source = tuple[Path, dict[str, Any]]
"""A source file and its entry in the record."""


def why_stale(store_dir: Path, wanted: dict[str, Any], text: Listing, say: Say = silent) -> str | None:
    """None if the store can be reused; else why not, in words, empty if there simply is none yet.

    Args:
        store_dir: The store.
        wanted: What it has to be made from: format, tokenizer, rules.
        text: Its source files.
        say: Told before more than a gigabyte is read to compare it.
    """
    if not store_dir.exists() or not any(store_dir.iterdir()):
        return ""
    record, fault = read_record(store_dir)
    if record is None:
        return fault
    for key, words in (
        ("format", "it was written by another version of litmoe"),
        ("tokenizer", "the tokenizer changed"),
        ("split", "the rule for where documents end changed"),
        ("part", "the rule for splitting off validation text changed"),
        ("text_field", "the field with the text changed"),
    ):
        if record["made_from"].get(key) != wanted.get(key):
            return words
    known = {entry["name"]: entry for entry in record["files"]}
    sources: list[_Source] = []
    for path in text.files:
        name = text.name(path)
        entry = known.pop(name, None)
        if entry is None:
            return f"{name} is new"
        if path.stat().st_size != entry["size"]:
            return f"{name} changed"
        sources.append((path, entry))
    if known:
        return f"{next(iter(known))} is gone"
    return _why_changed(store_dir, record, sources, say)


def why_damaged(store_dir: Path, record: dict[str, Any], say: Say = silent) -> str | None:
    """Which of a store's own files is damaged, by their checksums; None if none was found to be."""
    return _why_changed(store_dir, record, [], say)


def _why_changed(store_dir: Path, record: dict[str, Any], sources: list[_Source], say: Say) -> str | None:
    # What is in doubt by its state? Where nothing can be remembered, only a source's time of modification
    # counts, or everything on a read-only disk would be read at every start.
    touched, settled_ones = _divide(sources, _is_touched)
    moved, _ = _divide(settled_ones, _is_moved)
    own = [name for name in (TOKENS, DOCUMENTS) if _is_new(record, store_dir / name)]
    seen_ns = disk_time_ns(store_dir) if touched or moved or own else None
    if seen_ns is None:
        moved, own = [], []

    doubtful = touched + moved
    known_doubtful = {path for path, _ in doubtful}  # a list would be searched once per file
    doubtful += _differing_blocks([source for source in sources if source[0] not in known_doubtful])
    _announce(say, store_dir, [path for path, _ in doubtful], "its text is new here, or was touched")
    for path, entry in doubtful:
        state = state_of(path)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                return f"{entry['name']} changed"
        entry |= settled(entry, state) | {"seen_ns": seen_ns, "blocks": block_hashes(path)}

    _announce(say, store_dir, [store_dir / name for name in own], "it is new here, or was touched")
    if CHECKS in record:
        fault = _damage(store_dir, record, own)
    else:
        fault = _take_checksums(store_dir, record) if own else None
    if fault is None and seen_ns is not None:
        update_record(store_dir, record)
    return fault


def _divide(
    sources: list[_Source], holds: Callable[[Path, dict[str, Any]], bool]
) -> tuple[list[_Source], list[_Source]]:
    """The sources of which something holds, and the others, each asked once."""
    groups: tuple[list[_Source], list[_Source]] = ([], [])
    for source in sources:
        groups[0 if holds(*source) else 1].append(source)
    return groups


def _is_touched(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a source has another time of modification, or one too close to when it was read to say anything."""
    mtime_ns, seen_ns = path.stat().st_mtime_ns, entry["seen_ns"]
    return bool(mtime_ns != entry["mtime_ns"] or seen_ns is None or mtime_ns >= seen_ns - _RACY_NS)


def _is_moved(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a source is another file under the same name, or was changed and given its old time back."""
    state = state_of(path)
    return bool(differing(entry, state) or state["ctime_ns"] >= entry["seen_ns"] - _RACY_NS)


def _differing_blocks(sources: list[_Source]) -> list[_Source]:
    """Sources of which a block is not what it was; a few blocks are looked at."""
    found = []
    for number, blocks in some_blocks(len(sources)).items():
        path, entry = sources[number]
        if "blocks" in entry and block_hashes(path, blocks) != [entry["blocks"][block] for block in blocks]:
            found.append((path, entry))
    return found


def _is_new(record: dict[str, Any], path: Path) -> bool:
    """Whether a file of the store was never compared in the state it has."""
    return CHECKS not in record or bool(differing(record[CHECKS][path.name]["state"], state_of(path)))


def _damage(store_dir: Path, record: dict[str, Any], own: list[str]) -> str | None:
    """Compare the store's files with their checksums: those named in ``own`` whole, of the others some chunks."""
    for name in (TOKENS, DOCUMENTS):
        path, check = store_dir / name, record[CHECKS][name]
        state = state_of(path)
        number = damaged_chunk(path, check["chunks"], everything=name in own)
        if number is not None:
            return f"{name} is damaged near byte {number * CHUNK_BYTES:,}"
        if name in own:
            check["state"] = settled(check["state"], state)
    return None


def _take_checksums(store_dir: Path, record: dict[str, Any]) -> str | None:
    """Add checksums to a record of version 0.1.0. Nothing tells yet what was there, but an id must be a token."""
    checks = {}
    for name in (TOKENS, DOCUMENTS):
        path, hashes = store_dir / name, ChunkHashes()
        state = state_of(path)
        with path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                hashes.update(data)
                if name == TOKENS and np.frombuffer(data, record["dtype"]).max() >= record["vocab_size"]:
                    return f"{name} is damaged: it holds ids that are no tokens"
        checks[name] = {"state": state, "chunks": hashes.digests()}
    record[CHECKS] = checks
    return None


def _announce(say: Say, store_dir: Path, paths: list[Path], why: str) -> None:
    n_bytes = sum(path.stat().st_size for path in paths)
    if n_bytes > _LONG_BYTES:
        say(f"{store_dir.name} store: reading {readable(n_bytes)} to compare it once, as {why}")
