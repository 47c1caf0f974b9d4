"""The tokenized corpus: one memory-mapped array of token ids, built again when its sources change.

A store is a folder of three files:

- ``tokens.bin``: the ids of all documents one after another, each ended by the end-of-text token;
  little-endian ``uint16`` where the vocabulary allows, else ``uint32``.
- ``documents.bin``: little-endian ``int64``, where each document starts, and at last where all end.
- ``store.json``: counts, what the store was made from, and checksums. Written last.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from litmoe.data.checksums import ChunkHashes, block_hashes, state_of
from litmoe.data.documents import Boundaries
from litmoe.data.encoding import Encoder, chosen_documents
from litmoe.data.formats import read_documents
from litmoe.data.freshness import why_damaged, why_stale
from litmoe.data.listing import has_text, list_text, no_text
from litmoe.data.store_record import (
    CHECKS,
    COUNTS,
    DOCUMENTS,
    OWN_FILES,
    STORE,
    TOKENS,
    disk_time_ns,
    dump,
    read_record,
)
from litmoe.data.tokenizer import tokenizer_fingerprint
from litmoe.errors import DataError
from litmoe.files import only_one_process, refuse_foreign, whole_folder
from litmoe.messages import Say, silent

FORMAT = 1
"""Raise it whenever the same text and tokenizer would give other tokens: every store is then rebuilt."""


@dataclass(frozen=True)
class Part:
    """One side of a text that is split by document hash."""

    side: Literal["train", "val"]
    val_fraction: float


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The tokens of one split, mapped into memory: opening costs nothing, whatever the size."""

    directory: Path
    tokens: np.ndarray
    document_offsets: np.ndarray
    n_documents: int
    n_tokens: int
    n_bytes: int
    """UTF-8 bytes of the documents, without separators: what bits per byte divides by."""
    eos_id: int
    vocab_size: int
    fingerprint: str
    """The same for the same text, tokenizer and rules, wherever and whenever built."""

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True, say: Say = silent) -> "TokenStore":
        """Open a finished store.

        Args:
            directory: Its folder.
            verify: Compare its files with their checksums: all of them once after they were written, copied or
                touched, later a few chunks (64 MB).
            say: Told before more than a gigabyte is read for that.

        Raises:
            DataError: It is missing, cut short or damaged.
        """
        record, fault = read_record(directory)
        if record is not None and verify:
            fault = why_damaged(directory, record, say) or ""
        if record is None or fault:
            raise DataError(f"no usable token store in {directory}: {fault}; run litmoe prepare to build it")
        return cls(
            directory=directory,
            tokens=np.memmap(directory / TOKENS, dtype=record["dtype"], mode="r"),
            document_offsets=np.memmap(directory / DOCUMENTS, dtype="<i8", mode="r"),
            **{name: record[name] for name in COUNTS},
            fingerprint=record["fingerprint"],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the folder's name: a data-loading worker maps the file again, and copies nothing."""
        return _reopen, (self.directory,)


def _reopen(directory: Path) -> TokenStore:
    return TokenStore.open(directory, verify=False)


def ensure_store(
    text_dir: Path,
    tokenizer_dir: Path,
    store_dir: Path,
    *,
    say: Say = silent,
    progress: bool = False,
    part: Part | None = None,
    split: Boundaries = "auto",
) -> TokenStore:
    """Open the store of ``text_dir/*.txt``; build it first if it is missing, damaged, or out of date.

    Safe to call from several processes at once: one builds, the others wait and open.

    Args:
        text_dir: Folder with the text; documents end at ``<|endoftext|>``, and at the end of a file.
        tokenizer_dir: The tokenizer's folder.
        store_dir: Where the store is. Nothing else is touched.
        say: Told what is built and why; nothing when the store is reused.
        progress: Show a progress bar.
        part: Keep only these documents, for text that is divided between two stores.
        split: Where documents end, see :func:`litmoe.data.documents.documents_in`.

    Raises:
        DataError: No text, text that is not UTF-8, no tokenizer, a ``store_dir`` with somebody else's files, or no
            document for this store.
    """
    wanted = {
        "format": FORMAT,
        "tokenizer": tokenizer_fingerprint(tokenizer_dir),
        "split": split,
        "part": None if part is None else {"side": part.side, "val_fraction": part.val_fraction},
    }
    files = text_files(text_dir)
    refuse_foreign(store_dir, OWN_FILES, "token store")
    if why_stale(store_dir, wanted, text_dir, files, say) is not None:
        with only_one_process(store_dir, say):
            reason = why_stale(store_dir, wanted, text_dir, files)  # another process may just have built it
            if reason is not None:
                megabytes = sum(path.stat().st_size for path in files) / 1e6
                new = f"built from {megabytes:.1f} MB of text in {text_dir}"
                say(f"{store_dir.name} store {f'rebuilt: {reason}' if reason else new}")
                with whole_folder(store_dir, OWN_FILES, "token store") as folder:
                    bar = store_dir.name if progress else None
                    _build(folder, text_dir, files, tokenizer_dir, wanted, bar)
    return TokenStore.open(store_dir, verify=False)  # which has just been done


def ensure_stores(
    train_dir: Path,
    val_dir: Path,
    tokenizer_dir: Path,
    *,
    say: Say = silent,
    progress: bool = False,
    val_fraction: float | None = None,
) -> tuple[TokenStore, TokenStore]:
    """The training and the validation store of two text folders: ``train_dir/train`` and ``val_dir/val``.

    Without any ``val_dir/*.txt``, both come from the training text, split by document hash.

    Args:
        train_dir: Folder with the training text.
        val_dir: Folder with the validation text, or without.
        tokenizer_dir: The tokenizer's folder.
        say: Gets one line per build.
        progress: Show progress bars.
        val_fraction: Share of documents split off where there is no validation text. None: the share of
            the existing stores, so that every caller agrees with the one who chose it; else 0.05.

    Raises:
        DataError: As :func:`ensure_store`.
    """
    train_store, val_store = train_dir / "train", val_dir / "val"
    parts: tuple[Part | None, Part | None] = None, None
    val_text = val_dir
    if not has_text(val_dir):
        if val_fraction is None:
            record, _ = read_record(train_store)
            known = record["made_from"].get("part") if record else None
            val_fraction = known["val_fraction"] if known else 0.05
        parts, val_text = (Part("train", val_fraction), Part("val", val_fraction)), train_dir
    train = ensure_store(train_dir, tokenizer_dir, train_store, say=say, progress=progress, part=parts[0])
    val = ensure_store(val_text, tokenizer_dir, val_store, say=say, progress=progress, part=parts[1])
    return train, val


def text_files(text_dir: Path) -> list[Path]:
    """The .txt files of a folder, in order of name.

    Raises:
        DataError: There is no such folder, or no .txt file in it.
    """
    if not text_dir.exists():
        raise DataError(f"there is no text folder {text_dir}; run litmoe prepare, or put .txt files there")
    files = list_text(text_dir).files
    if not files:
        raise DataError(f"{no_text(text_dir)}; run litmoe prepare, or put text there")
    return files


def _build(
    folder: Path,
    text_dir: Path,
    files: list[Path],
    tokenizer_dir: Path,
    wanted: dict[str, Any],
    bar: str | None,
) -> None:
    """Fill ``folder`` with a store.

    Args:
        folder: An empty folder.
        text_dir: Where the source files lie.
        files: The source files, in order.
        tokenizer_dir: The tokenizer's folder.
        wanted: What the store is made from, as its record will say.
        bar: The name on the progress bar; None: no bar.
    """
    # Before reading: a file that changes meanwhile is noticed at the next look.
    seen_ns = disk_time_ns(folder)
    sizes = [path.stat().st_size for path in files]
    states = [state_of(path) for path in files]

    hashes = [hashlib.sha256() for _ in files]
    part, split = wanted["part"], wanted["split"]
    with Encoder(tokenizer_dir, folder / TOKENS, sum(sizes), bar) as encoder:

        def see(hash_: Any) -> Callable[[bytes], None]:
            def both(raw: bytes) -> None:
                hash_.update(raw)
                encoder.advance(len(raw))

            return both

        pieces = (
            piece
            for path, hash_ in zip(files, hashes, strict=True)
            for piece in read_documents(path, split, see=see(hash_))
        )
        side = part and (part["side"], part["val_fraction"])
        for piece in chosen_documents(pieces, files, side, split):
            encoder.add(piece)
    if not encoder.offsets[1:]:
        raise DataError(f"the text in {files[0].parent} is empty; put documents there or run litmoe prepare")

    offsets = np.asarray(encoder.offsets, dtype="<i8")
    offsets.tofile(folder / DOCUMENTS)
    document_hashes = ChunkHashes()
    document_hashes.update(offsets.tobytes())
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
                "name": path.relative_to(text_dir).as_posix(),
                "size": size,
                "seen_ns": seen_ns,
                "sha256": digest,
                "blocks": block_hashes(path),
                **state,
            }
            for path, size, state, digest in zip(files, sizes, states, digests, strict=True)
        ],
        CHECKS: {
            name: {"state": state_of(folder / name), "chunks": chunks}
            for name, chunks in (
                (TOKENS, encoder.hashes.digests()),
                (DOCUMENTS, document_hashes.digests()),
            )
        },
    }
    (folder / STORE).write_text(dump(record), encoding="utf-8", newline="\n")
