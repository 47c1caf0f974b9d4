"""All documents of the sources, divided into training and validation text, so that none is in both."""

from collections.abc import Callable, Iterator
from pathlib import Path

from litmoe.config import PrepareConfig
from litmoe.data.corpus import Source, SourcePart, Split
from litmoe.data.documents import Piece, document_key, validation_limit
from litmoe.data.encoding import document_keys, one_document
from litmoe.data.reading.notes import Notes
from litmoe.data.text_shards import ShardWriter
from litmoe.errors import DataError
from litmoe.messages import readable
from litmoe.progress_bar import progress_bar


class Quota:
    """How many documents may be read."""

    def __init__(self, most: int | None) -> None:
        """``most``: None for all."""
        self._most = most
        self.read = 0
        """Documents read so far."""

    def left(self, share: float = 1) -> int | None:
        """How many more may be read, of a share of the quota (at least one document); None: all."""
        return None if self._most is None else max(1, round(self._most * share)) - self.read


class SplitsWriter:
    """A training and a validation :class:`ShardWriter`, and the rule that no document reaches both."""

    def __init__(self, folder: Path, progress: bool, remember_validation: bool) -> None:
        """``remember_validation``: keep the keys of validation documents, about 100 bytes each. Needed only
        where a source has its own split; a hash never sends equal documents to different splits."""
        self.train, self.val = ShardWriter(folder / "train"), ShardWriter(folder / "val")
        self.dropped = 0
        """Training documents left out because they are validation documents too."""
        self.dropped_bytes = 0
        self.exchanged: str | None = None
        """What to say if the two splits were exchanged."""
        self.notes = Notes()
        self._validation_keys: set[int] | None = set() if remember_validation else None
        self._bar = progress_bar(desc="read", unit=" documents", unit_scale=True, show=progress)

    def take(self, part: SourcePart, quota: Quota, split: Callable[[int], Split], share: float = 1) -> None:
        """Write the documents of ``part`` that its quota allows, each to the split that its key selects.

        Args:
            part: What to read.
            quota: How many documents may be read.
            split: The key of a document -> its split.
            share: How much of the whole quota may be used up after this.
        """
        target: ShardWriter | None = None
        starts = True
        for piece in first_documents(part.read(self.notes), quota.left(share)):
            if starts:
                target = self._target(document_key(piece.text), split)
                quota.read += 1
            if target is not None:
                target.add(piece)
            else:
                self.dropped_bytes += len(piece.text.encode())
            starts = piece.ends_document
            self._bar.update(starts)

    def _target(self, key: int, split: Callable[[int], Split]) -> ShardWriter | None:
        keys = self._validation_keys
        if split(key) == "val":
            if keys is not None:
                keys.add(key)
            return self.val
        if keys is not None and key in keys:
            self.dropped += 1
            return None
        return self.train

    def lines(self) -> list[str]:
        """What a person should know about the text that was written, a line each."""
        lines = self.notes.lines()
        if self.dropped:
            lines.append(
                f"dropped {self.dropped:,} training documents that are in the validation text too "
                f"({readable(self.dropped_bytes)})"
            )
        control = self.train.control_characters + self.val.control_characters
        if control:
            lines.append(f"{control:,} control characters (NUL and the like) are kept as text")
        if self.exchanged:
            lines.append(self.exchanged)
        elif self.val.n_bytes > self.train.n_bytes:
            sizes = f"{readable(self.val.n_bytes)} against {readable(self.train.n_bytes)}"
            lines.append(f"there is more validation text than training text: {sizes}")
        return lines

    def exchange(self) -> None:
        """Make the validation text, which is the longer one, the training text, and the other way round."""
        train, val = readable(self.train.n_bytes), readable(self.val.n_bytes)
        self.train, self.val = self.val, self.train
        aside = self.train.folder.with_name("aside")
        self.train.move(aside)
        self.val.move(self.val.folder.with_name("val"))
        self.train.move(aside.with_name("train"))
        self.exchanged = f"a split by document would train on {train} and validate on {val}: exchanged"

    def close(self) -> None:
        """Finish all files."""
        self.train.close()
        self.val.close()
        self._bar.close()


def write_splits(sources: list[Source], config: PrepareConfig, folder: Path) -> SplitsWriter:
    """Read all sources and write ``folder/train`` and ``folder/val``.

    Documents without a split go by their hash. Validation text is read first, and a training document equal to one
    of it is dropped: so a published validation split stays whole, and none of it is trained on.

    A hash knows nothing of length: where it gives more text to validation than to training (one long document
    among a few short ones), the two are exchanged.

    Raises:
        DataError: A source cannot be read, or a split would be empty.
    """
    parts: dict[Split | None, list[tuple[SourcePart, int]]] = {"val": [], None: [], "train": []}
    for number, source in enumerate(sources):
        for part in source.parts:
            parts[part.split].append((part, number))
    names = ", ".join(source.name for source in sources)
    writer = SplitsWriter(folder, config.progress, remember_validation=bool(parts["val"]))
    quotas = _quotas(config)
    try:
        # Published validation text.
        for part, number in parts["val"]:
            writer.take(part, quotas[number], lambda key: "val", share=config.val_fraction)

        # Text to divide by hash; what divides it has to be known first.
        if parts[None]:
            limit: int | None = int(config.val_fraction * 2**64)
            if not parts["val"]:
                limit = validation_limit(
                    document_keys(_read_within(parts[None], _quotas(config))), config.val_fraction
                )
            if limit is None:
                empty = next(_read_within(parts[None], _quotas(config)), None) is None
                raise DataError(one_document(names, empty))
            for part, number in parts[None]:
                writer.take(part, quotas[number], lambda key: "val" if key < limit else "train")

        # Published training text.
        for part, number in parts["train"]:
            writer.take(part, quotas[number], lambda key: "train")
    finally:
        writer.close()

    for split, what in ((writer.train, "training"), (writer.val, "validation")):
        if not split.documents:
            raise DataError(f"{names}: no {what} document is left; check the {what} part of the source")
    own_split = parts["val"] or parts["train"]
    if writer.val.n_bytes > writer.train.n_bytes and config.val_fraction < 0.5 and not own_split:
        writer.exchange()
    return writer


def _quotas(config: PrepareConfig) -> list[Quota]:
    """A quota for each source: its own, or one that all share."""
    most = config.max_documents
    if isinstance(most, list):
        return [Quota(number) for number in most]
    return [Quota(most)] * len(config.source)


def _read_within(parts: list[tuple[SourcePart, int]], quotas: list[Quota]) -> Iterator[Piece]:
    """The documents of all parts, one part after another, as many as the quotas of their sources allow."""
    for part, number in parts:
        for piece in first_documents(part.read(), quotas[number].left()):
            yield piece
            quotas[number].read += piece.ends_document


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
