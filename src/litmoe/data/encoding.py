"""Pieces of documents in, token ids in a file out: at the speed of the tokenizer library, in bounded memory."""

from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from litmoe.data.checksums import ChunkHashes
from litmoe.data.documents import (
    Boundaries,
    Piece,
    document_key,
    validation_limit,
)
from litmoe.data.plain_text import PlainText
from litmoe.data.reading.decoding import control_characters
from litmoe.data.reading.formats import read_documents
from litmoe.data.tokenizer_folder import open_tokenizer, vocabulary_size
from litmoe.data.word_cache import WordCache, splits_like_gpt2
from litmoe.errors import DataError
from litmoe.progress_bar import progress_bar

BATCH_BYTES = 2 << 20
"""Text encoded in one call. The library needs about 150 bytes of memory per token for it, two batches are in
flight, and a token may be as short as a byte. Larger batches are no faster."""


class Encoder:
    """Encodes documents in batches and appends their ids to a file.

    What :class:`WordCache` cannot encode goes to the tokenizer library. While its threads encode what a batch
    has for them, this thread writes the batch before, and encodes the words of the next.
    """

    def __init__(self, tokenizer_dir: Path, path: Path, total: int, bar: str | None) -> None:
        """
        Args:
            tokenizer_dir: The tokenizer's folder.
            path: The file to write.
            total: Size of the source text in bytes, for the progress bar.
            bar: The name on the progress bar; None: no bar.
        """
        self._tokenizer, self.eos_id = open_tokenizer(tokenizer_dir)
        self._plain_text = PlainText(self._tokenizer, self.eos_id)
        self.vocab_size = vocabulary_size(self._tokenizer)
        self.dtype = "<u2" if self.vocab_size <= 1 << 16 else "<u4"
        self._words = WordCache(self._tokenizer, self.dtype) if splits_like_gpt2(self._tokenizer) else None
        self._eos = np.asarray([self.eos_id], self.dtype).tobytes()
        self.offsets = array("q", [0])
        """Where each document starts, and at last where all end."""
        self.n_bytes = 0
        """UTF-8 bytes of the documents."""
        self.control_characters = 0
        self.hashes = ChunkHashes()
        """The checksums of what was written."""
        self._batch: list[Piece] = []
        self._batch_bytes = 0
        self._in_flight: tuple[Future[Any], list[Piece], list[bytes | None]] | None = None
        self._written = 0  # bytes
        self._path, self._total, self._name = path, total, bar

    def __enter__(self) -> "Encoder":
        self._file = self._path.open("wb")
        self._pool = ThreadPoolExecutor(1)
        self._bar = progress_bar(
            total=self._total,
            desc=f"tokenize {self._name}",
            unit="B",
            unit_scale=True,
            show=self._name is not None,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._encode()
                self._write()
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._bar.close()
            self._file.close()

    def advance(self, n_bytes: int) -> None:
        """Move the progress bar by so much source text."""
        self._bar.update(n_bytes)

    def add(self, piece: Piece) -> None:
        """Append a piece; an end-of-text token follows the last one of a document."""
        self._batch.append(piece)
        raw = piece.text.encode()
        size = len(raw)
        self.n_bytes += size
        self.control_characters += control_characters(raw)
        self._batch_bytes += size + 64  # what a document costs even when it is tiny
        if self._batch_bytes > BATCH_BYTES:
            self._encode()

    def _encode(self) -> None:
        """Start encoding the batch, then write the one before it."""
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        by_words = [self._words.encode(piece.text) if self._words else None for piece in batch]
        texts = [piece.text for piece, ids in zip(batch, by_words, strict=True) if ids is None]
        future = self._pool.submit(self._tokenizer.encode_batch_fast, texts, add_special_tokens=False)
        self._write()
        self._in_flight = future, batch, by_words

    def _write(self) -> None:
        """Wait for the batch in flight and write it."""
        if self._in_flight is None:
            return
        future, batch, by_words = self._in_flight
        self._in_flight = None
        encodings = iter(future.result())
        for piece, ids in zip(batch, by_words, strict=True):
            if ids is None:
                plain = self._plain_text.checked(piece.text, next(encodings).ids)
                ids = np.asarray(plain, self.dtype).tobytes()
            self._append(ids)
            if piece.ends_document:
                self._append(self._eos)
                self.offsets.append(self._written // len(self._eos))

    def _append(self, ids: bytes) -> None:
        self._file.write(ids)
        self.hashes.update(ids)
        self._written += len(ids)


def chosen_documents(
    pieces: Iterable[Piece],
    files: list[Path],
    part: tuple[Literal["train", "val"], float] | None,
    boundaries: Boundaries,
    text_field: str,
) -> Iterator[Piece]:
    """Of the documents in ``pieces``, those of one split by hash.

    Args:
        pieces: All documents.
        files: Where they come from, to be read once more for the rule.
        part: The split, and the share of documents to validate on; None: all documents.
        boundaries: Where documents end in .txt files.
        text_field: Where records have their text.

    Raises:
        DataError: The text has fewer than two different documents, so that one split would be empty.
    """
    if part is None:
        yield from pieces
        return
    keys = (key for path in files for key in document_keys(read_documents(path, boundaries, text_field)))
    limit = validation_limit(keys, part[1])
    if limit is None:
        raise DataError(one_document(str(files[0].parent), empty=next(iter(pieces), None) is None))
    starts, chosen = True, False
    for piece in pieces:
        if starts:
            chosen = (document_key(piece.text) < limit) == (part[0] == "val")
        if chosen:
            yield piece
        starts = piece.ends_document


def document_keys(pieces: Iterable[Piece]) -> Iterator[int]:
    """The key of every document in a stream of pieces."""
    starts = True
    for piece in pieces:
        if starts:
            yield document_key(piece.text)
        starts = piece.ends_document


def one_document(where: str, empty: bool) -> str:
    """The message for text of which nothing can be held out."""
    if empty:
        return f"{where} holds no document: the text is empty; give text to train on"
    return (
        f"{where} holds only one document, so none can be held out for validation; separate documents by "
        "<|endoftext|>, name the text with --source and use --document-boundaries blank-line, or put "
        "validation text into the val folder"
    )
