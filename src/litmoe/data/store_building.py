"""A token store made from its text: files in, a folder with tokens and their record out."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from litmoe.data.checksums import ChunkHashes, block_hashes, state_of
from litmoe.data.encoding import Encoder, chosen_documents
from litmoe.data.reading.formats import read_documents
from litmoe.data.reading.listing import Listing
from litmoe.data.reading.notes import Notes
from litmoe.data.store_record import CHECKS, DOCUMENTS, STORE, TOKENS, disk_time_ns, dump
from litmoe.errors import DataError


def build_store(
    folder: Path, text: Listing, tokenizer_dir: Path, wanted: dict[str, Any], bar: str | None
) -> list[str]:
    """Fill an empty folder with a store.

    Args:
        folder: The folder.
        text: The source files.
        tokenizer_dir: The tokenizer's folder.
        wanted: What the store is made from, as its record will say.
        bar: The name on the progress bar; None: no bar.

    Returns:
        What a person should know of the text, a line each.

    Raises:
        DataError: Text that cannot be read, or no document for this store.
    """
    # Before reading: a file that changes meanwhile is noticed at the next look.
    seen_ns = disk_time_ns(folder)
    sizes = [path.stat().st_size for path in text.files]
    states = [state_of(path) for path in text.files]

    hashes = [hashlib.sha256() for _ in text.files]
    boundaries, field, part = wanted["split"], wanted.get("text_field", "text"), wanted["part"]
    notes = Notes()
    with Encoder(tokenizer_dir, folder / TOKENS, sum(sizes), bar) as encoder:

        def see(hash_: Any) -> Callable[[bytes], None]:
            def both(raw: bytes) -> None:
                hash_.update(raw)
                encoder.advance(len(raw))

            return both

        pieces = (
            piece
            for path, hash_ in zip(text.files, hashes, strict=True)
            for piece in read_documents(path, boundaries, field, see=see(hash_), notes=notes)
        )
        chosen = part and (_side(part), part["val_fraction"])
        for piece in chosen_documents(pieces, text.files, chosen, boundaries, field):
            encoder.add(piece)
    if not encoder.offsets[1:]:
        raise DataError(f"the text in {text.root} is empty; put documents there or run litmoe prepare")

    offsets = np.asarray(encoder.offsets, dtype="<i8")
    offsets.tofile(folder / DOCUMENTS)
    document_hashes = ChunkHashes()
    document_hashes.update(offsets.tobytes())
    checks = {TOKENS: encoder.hashes.digests(), DOCUMENTS: document_hashes.digests()}
    digests = [hash_.hexdigest() for hash_ in hashes]
    record = {
        "fingerprint": hashlib.sha256(json.dumps([wanted, digests]).encode()).hexdigest(),
        "dtype": encoder.dtype,
        "n_documents": len(encoder.offsets) - 1,
        "n_tokens": encoder.offsets[-1],
        "n_bytes": encoder.n_bytes,
        "eos_id": encoder.eos_id,
        "vocab_size": encoder.vocab_size,
        "made_from": wanted,
        "files": [
            {
                "name": text.name(path),
                "size": size,
                "seen_ns": seen_ns,
                "sha256": digest,
                "blocks": block_hashes(path),
                **state,
            }
            for path, size, state, digest in zip(text.files, sizes, states, digests, strict=True)
        ],
        CHECKS: {
            name: {"state": state_of(folder / name), "chunks": chunks} for name, chunks in checks.items()
        },
    }
    (folder / STORE).write_text(dump(record), encoding="utf-8", newline="\n")
    lines = text.lines() + notes.lines()
    if encoder.control_characters:
        lines.append(f"{encoder.control_characters:,} control characters (NUL and the like) are kept as text")
    return lines


def _side(part: dict[str, Any]) -> Literal["train", "val"]:
    """Which of the two sets of documents, told apart by their hash, goes into a store."""
    is_val = (part["side"] == "val") != part.get("exchanged", False)
    return "val" if is_val else "train"
