"""Documents out: sources become text files of about 64 MB, on the training or the validation side.

The files are plain text with a line ``<|endoftext|>`` after every document, which any tool can read.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from litmoe.config import PrepareConfig
from litmoe.data.corpus import Side, Source, SourcePart
from litmoe.data.documents import END_OF_TEXT, Piece, document_key, validation_limit
from litmoe.data.encoding import document_keys, one_document
from litmoe.errors import LitMoEError

SHARD_BYTES = 64 << 20


class ShardWriter:
    """Writes documents to ``folder/shard-00000.txt`` and on; a new file starts between documents."""

    def __init__(self, folder: Path) -> None:
        self.files: list[dict[str, Any]] = []
        """Name, size and sha256 of each finished file."""
        self.documents = 0
        self.n_bytes = 0
        """UTF-8 bytes of the documents, without separators."""
        self._folder = folder
        self._file: Any = None
        self._size = 0
        folder.mkdir(parents=True)

    def add(self, piece: Piece) -> None:
        """Append a piece of a document."""
        if self._file is None:
            self._file = (self._folder / f"shard-{len(self.files):05d}.txt").open("wb")
            self._hash, self._size = hashlib.sha256(), 0
        text = piece.text.encode()
        self.n_bytes += len(text)
        raw = text + f"\n{END_OF_TEXT}\n".encode() if piece.ends_document else text
        self._file.write(raw)
        self._hash.update(raw)
        self._size += len(raw)
        if piece.ends_document:
            self.documents += 1
            if self._size >= SHARD_BYTES:
                self.close()

    def close(self) -> None:
        """Finish the file, down to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            name = f"{self._folder.name}/{Path(self._file.name).name}"
            self.files.append({"name": name, "size": self._size, "sha256": self._hash.hexdigest()})
            self._file = None


class SidesWriter:
    """A training and a validation :class:`ShardWriter`, and the rule that no document reaches both."""

    def __init__(self, folder: Path, progress: bool, remember_validation: bool) -> None:
        """``remember_validation``: keep the keys of validation documents, about 100 bytes each. Needed only
        where a source has its own split; a hash never sends equal documents to different sides."""
        self.train, self.val = ShardWriter(folder / "train"), ShardWriter(folder / "val")
        self.read = 0
        """Documents taken so far, the dropped ones included."""
        self.dropped = 0
        """Training documents left out because they are validation documents too."""
        self._validation_keys: set[int] | None = set() if remember_validation else None
        self._bar = tqdm(desc="read", unit=" documents", unit_scale=True, disable=not progress)

    def take(self, parts: list[SourcePart], most: int | None, side: Callable[[int], Side]) -> None:
        """Write the documents of ``parts``, at most so many, to the side which their key has."""
        target: ShardWriter | None = None
        starts = True
        for piece in first_documents(read_all(parts), most):
            if starts:
                target = self._target(document_key(piece.text), side)
                self.read += 1
            if target is not None:
                target.add(piece)
            starts = piece.ends_document
            self._bar.update(starts)

    def _target(self, key: int, side: Callable[[int], Side]) -> ShardWriter | None:
        keys = self._validation_keys
        if side(key) == "val":
            if keys is not None:
                keys.add(key)
            return self.val
        if keys is not None and key in keys:
            self.dropped += 1
            return None
        return self.train

    def close(self) -> None:
        """Finish all files."""
        self.train.close()
        self.val.close()
        self._bar.close()


def write_sides(sources: list[Source], config: PrepareConfig, folder: Path) -> SidesWriter:
    """Read all sources and write ``folder/train`` and ``folder/val``.

    Documents without a side go by their hash. Validation text is read first, and a training document equal
    to one of it is dropped: so a published validation split stays whole, and none of it is trained on.

    Raises:
        LitMoEError: A source cannot be read, or a side would be empty.
    """
    parts: dict[Side | None, list[SourcePart]] = {"val": [], None: [], "train": []}
    for source in sources:
        for part in source.parts:
            parts[part.side].append(part)
    names = ", ".join(source.name for source in sources)
    most = config.max_documents
    writer = SidesWriter(folder, config.progress, remember_validation=bool(parts["val"]))

    def left() -> int | None:
        return None if most is None else most - writer.read

    try:
        if parts["val"]:
            share = None if most is None else max(1, round(most * config.val_fraction))
            writer.take(parts["val"], share, lambda key: "val")
        if parts[None]:
            limit: int | None = int(config.val_fraction * 2**64)
            if not parts["val"]:
                limit = validation_limit(
                    document_keys(first_documents(read_all(parts[None]), most)), config.val_fraction
                )
            if limit is None:
                raise LitMoEError(one_document(names, next(read_all(parts[None]), None) is None))
            writer.take(parts[None], left(), lambda key: "val" if key < limit else "train")
        writer.take(parts["train"], left(), lambda key: "train")
    finally:
        writer.close()
    for side, words in ((writer.train, "training"), (writer.val, "validation")):
        if not side.documents:
            raise LitMoEError(f"{names}: no {words} document is left; check the {words} part of the source")
    return writer


def read_all(parts: list[SourcePart]) -> Iterator[Piece]:
    """The documents of all parts, one part after another."""
    for part in parts:
        yield from part.read()


def first_documents(pieces: Iterator[Piece], most: int | None) -> Iterator[Piece]:
    """At most so many documents; all for None."""
    if most is None:
        yield from pieces
        return
    while most > 0:
        piece = next(pieces, None)
        if piece is None:
            return
        yield piece
        most -= piece.ends_document
