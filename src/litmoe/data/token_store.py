"""The tokenized corpus: one memory-mapped array of token ids, built again when its sources change.

A store is a folder of three files:

- ``tokens.bin``: the ids of all documents one after another, each ended by the end-of-text token;
  little-endian ``uint16`` where the vocabulary allows, else ``uint32``.
- ``documents.bin``: little-endian ``int64``, where each document starts, and at last where all end.
- ``store.json``: counts, what the store was made from, and checksums. Written last.
"""

from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np

from litmoe.data.documents import Boundaries
from litmoe.data.freshness import why_damaged, why_stale
from litmoe.data.reading.listing import Listing, has_text, list_text, no_text
from litmoe.data.store_building import build_store
from litmoe.data.store_record import COUNTS, DOCUMENTS, OWN_FILES, TOKENS, distrust, read_record
from litmoe.data.tokenizer_folder import tokenizer_fingerprint
from litmoe.errors import DataError
from litmoe.files import only_one_process, refuse_foreign, whole_folder
from litmoe.messages import Say, silent

FORMAT = 1
"""Raise it whenever the same text and tokenizer would give other tokens: every store is then rebuilt."""


@dataclass(frozen=True)
class Part:
    """One split of a text that is divided by document hash."""

    split: Literal["train", "val"]
    val_fraction: float
    exchanged: bool = False
    """The documents that the hash sends to validation are trained on, and the other way round."""

    def record(self) -> dict[str, Any]:
        """What the store's record says of it; as version 0.1.0 wrote it, unless exchanged."""
        exchanged = {"exchanged": True} if self.exchanged else {}
        return {"side": self.split, "val_fraction": self.val_fraction, **exchanged}


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

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids of the tokens from ``start`` to ``stop``, (stop - start,), in the store's type.

        Raises:
            DataError: The file has been cut short since it was opened, or holds ids that are no tokens.
        """
        # A read beyond the end of a mapped file kills the process; asking for the size takes a microsecond.
        if isinstance(self.tokens.base, mmap) and self.tokens.base.size() < self.tokens.nbytes:
            raise DataError(
                f"{self.directory / TOKENS} was cut short while it was in use: start again, and it is made "
                "again from its text"
            )
        ids = self.tokens[start:stop]
        if ids.size and ids.max() >= self.vocab_size:
            distrust(self.directory)
            raise DataError(
                f"{self.directory / TOKENS} is damaged: it holds id {ids.max():,}, and the vocabulary has "
                f"{self.vocab_size:,}: start again, and it is made again from its text"
            )
        return ids

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the folder's name: a data-loading worker maps the file again, and copies nothing."""
        return _reopen, (self.directory,)


def _reopen(directory: Path) -> TokenStore:
    return TokenStore.open(directory, verify=False)


def ensure_store(
    text: Path,
    tokenizer_dir: Path,
    store_dir: Path,
    *,
    say: Say = silent,
    progress: bool = False,
    part: Part | None = None,
    boundaries: Boundaries = "auto",
    text_field: str = "text",
) -> TokenStore:
    """Open the store of a text; build it first if it is missing, damaged, or out of date.

    Safe to call from several processes at once: one builds, the others wait and open.

    Args:
        text: A folder with text at any depth, or a single file.
        tokenizer_dir: The tokenizer's folder.
        store_dir: Where the store is. Nothing else is touched.
        say: Told what is built and why, and what of the text is left out; nothing when the store is reused.
        progress: Show a progress bar.
        part: Keep only these documents, for text that is divided between two stores.
        boundaries: Where documents end in .txt files, see :func:`litmoe.data.documents.documents_in`.
        text_field: Where records have their text.

    Raises:
        DataError: No text, text that cannot be read, no tokenizer, a ``store_dir`` with somebody else's files,
        or no
            document for this store.
    """
    wanted = {
        "format": FORMAT,
        "tokenizer": tokenizer_fingerprint(tokenizer_dir),
        "split": boundaries,
        "part": None if part is None else part.record(),
        **({} if text_field == "text" else {"text_field": text_field}),
    }
    sources = _list_text(text)
    refuse_foreign(store_dir, OWN_FILES, "token store")
    if why_stale(store_dir, wanted, sources, say) is not None:
        with only_one_process(store_dir, say):
            reason = why_stale(store_dir, wanted, sources)  # another process may just have built it
            if reason is not None:
                megabytes = sum(path.stat().st_size for path in sources.files) / 1e6
                new = f"built from {megabytes:.1f} MB of text in {text}"
                say(f"{store_dir.name} store {f'rebuilt: {reason}' if reason else new}")
                bar = store_dir.name if progress else None
                with whole_folder(store_dir, OWN_FILES, "token store") as folder:
                    for line in build_store(folder, sources, tokenizer_dir, wanted, bar):
                        say(line)
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

    Without text in ``val_dir``, or where it is ``train_dir``, both come from the training text, divided by
    document hash. A hash knows nothing of length: where it leaves less text to train on than to validate on,
    new stores take the documents the other way round. Stores that are there are kept as they are.

    Args:
        train_dir: Folder with the training text.
        val_dir: Folder with the validation text, or without.
        tokenizer_dir: The tokenizer's folder.
        say: Told what is built and why, and if there is more validation text than training text.
        progress: Show progress bars.
        val_fraction: Share of documents to validate on where there is no validation text. None: the share of
            the existing stores, so that every caller agrees with the one who chose it; else 0.05.

    Raises:
        DataError: As :func:`ensure_store`.
    """
    train_store, val_store = train_dir / "train", val_dir / "val"
    same = val_dir.resolve() == train_dir.resolve()
    whole = same and _is_whole(train_store) and _is_whole(val_store)  # by version 0.1.0
    if whole:
        say(
            f"{val_store}: validation text is the training text, as an older version of litmoe left it; to hold "
            f"some out, remove {train_store} and {val_store}"
        )
    if whole or (has_text(val_dir) and not same):
        train = ensure_store(train_dir, tokenizer_dir, train_store, say=say, progress=progress)
        return train, ensure_store(val_dir, tokenizer_dir, val_store, say=say, progress=progress)
    record, _ = read_record(train_store)
    known = (record["made_from"].get("part") if record else None) or {}
    if val_fraction is None:
        val_fraction = known.get("val_fraction", 0.05)
    exchanged = bool(known.get("exchanged")) and known["val_fraction"] == val_fraction

    def divided(exchanged: bool) -> tuple[TokenStore, TokenStore]:
        parts = Part("train", val_fraction, exchanged), Part("val", val_fraction, exchanged)
        train = ensure_store(train_dir, tokenizer_dir, train_store, say=say, progress=progress, part=parts[0])
        val = ensure_store(train_dir, tokenizer_dir, val_store, say=say, progress=progress, part=parts[1])
        return train, val

    train, val = divided(exchanged)
    if val.n_bytes > train.n_bytes:
        sizes = f"{train.n_tokens:,} tokens are left to train on and {val.n_tokens:,} to validate on"
        if record is None and val_fraction < 0.5:
            say(f"{train_dir}: divided by document, {sizes}: exchanged")
            del train, val  # Windows replaces no folder with a mapped file in it
            return divided(not exchanged)
        say(
            f"{train_dir}: divided by document, {sizes}: put validation text into {val_dir}, or lower "
            "--val-fraction"
        )
    return train, val


def _is_whole(store_dir: Path) -> bool:
    """Whether there is a store of all documents of its text."""
    record, _ = read_record(store_dir)
    return record is not None and record["made_from"].get("part") is None


def text_files(text_dir: Path) -> list[Path]:
    """The text files of a folder at any depth, in order of name; or a single file.

    Raises:
        DataError: There is no such folder, or no text in it.
    """
    return _list_text(text_dir).files


def _list_text(text: Path) -> Listing:
    if not text.exists():
        raise DataError(f"there is no text folder {text}; run litmoe prepare, or put .txt files there")
    listing = list_text(text)
    if not listing.files:
        raise DataError(f"{no_text(text)}; run litmoe prepare, or put text there")
    return listing
