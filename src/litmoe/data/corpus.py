"""Where documents come from: the built-in sample, TinyStories from the hub, and files and folders.

A source is a list of parts. A part knows its split ("train" or "val"), or leaves it to a hash of each document
(None); its documents can be read as often as wanted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from litmoe.config import PrepareConfig
from litmoe.data.documents import Piece, document_of
from litmoe.data.reading.formats import members, read_places
from litmoe.data.reading.kinds import ALSO_COMPRESSED, READS, bare_stem, form_of
from litmoe.data.reading.listing import list_text, no_text
from litmoe.data.reading.notes import Notes
from litmoe.data.reading.streams import Place
from litmoe.errors import DataError

Split = Literal["train", "val"]

TINY_STORIES = "roneneldan/TinyStories"
_TINY_STORIES_LICENCE = "CDLA-Sharing-1.0"

_SPLIT_NAMES: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val"}


class Reader(Protocol):
    """Reads documents from their start; what a person should know is counted in ``notes``."""

    def __call__(self, notes: Notes | None = None) -> Iterator[Piece]: ...


@dataclass
class SourcePart:
    """Documents of the same split."""

    split: Split | None
    read: Reader


@dataclass
class Source:
    """One thing named by ``--source``."""

    name: str
    parts: list[SourcePart]
    files: list[Path] = field(default_factory=list)
    """The local files it reads."""
    notes: list[str] = field(default_factory=list)
    """What a user should know about it, a line each."""
    origin: dict[str, Any] = field(default_factory=dict)
    """What to record: kind, licence, and after reading the revision."""


def open_sources(config: PrepareConfig) -> list[Source]:
    """Find everything that ``config.source`` names, without reading it yet.

    Raises:
        DataError: A name is neither built in nor a file or folder with text in it.
    """
    sources = []
    for number, name in enumerate(config.source):
        if name == "sample":
            most = config.max_documents
            sources.append(sample(most[number] if isinstance(most, list) else most, config.seed))
        elif name == "tinystories":
            sources.append(tiny_stories())
        else:
            sources.append(local_source(Path(name), config))
    return sources


def try_sources(sources: list[Source]) -> None:
    """Read the first document of every local source, so that a wrong field or kind of file shows at once.

    Raises:
        DataError: It cannot be read.
    """
    for source in sources:
        for part in source.parts if source.files else ():
            next(part.read(), None)


def sample(max_documents: int | None = None, seed: int = 0) -> Source:
    """The built-in stories."""
    from litmoe.stories import SAMPLE_STORIES, stories

    count = SAMPLE_STORIES if max_documents is None else min(max_documents, SAMPLE_STORIES)

    def read(notes: Notes | None = None) -> Iterator[Piece]:
        for story in stories(count, seed):
            yield from document_of(story)

    note = (
        "sample: the stories are synthetic, made by rules from word lists; good for a trial, not for a model"
    )
    origin = {"kind": "synthetic stories of litmoe", "seed": seed}
    return Source("sample", [SourcePart(None, read)], notes=[note], origin=origin)


def tiny_stories(path: str = TINY_STORIES) -> Source:
    """TinyStories from the Hugging Face hub, with its own validation split.

    Its files are downloaded one at a time, when their first document is read, into the hub's cache: what
    `max_documents` does not reach is not downloaded, a download that was cut off goes on where it stopped, and
    a second call downloads nothing. Documents are streamed from there.

    Args:
        path: The hub's name of it, or a local folder laid out alike.
    """
    origin: dict[str, Any] = {"kind": "hub data set", "path": path, "licence": _TINY_STORIES_LICENCE}

    def reader(split: str) -> Reader:
        def read(notes: Notes | None = None) -> Iterator[Piece]:
            try:
                # Both splits from one revision, whatever is pushed to the hub in between.
                if "revision" not in origin:
                    origin["revision"] = _newest_revision(path)
                for row in _hub_rows(path, split, origin["revision"]):
                    if not isinstance(row.get("text"), str):
                        raise DataError(f"{path} has no column of strings named 'text'; it may have changed")
                    yield from document_of(row["text"])
            except (DataError, GeneratorExit):
                raise
            except Exception as error:  # hub, HTTP and OS errors share no base class
                raise _hub_error(path, error) from error

        return read

    parts = [SourcePart("val", reader("validation")), SourcePart("train", reader("train"))]
    note = f"tinystories: {path}, licence {_TINY_STORIES_LICENCE}, with its own validation split"
    return Source("tinystories", parts, notes=[note], origin=origin)


def local_source(path: Path, config: PrepareConfig) -> Source:
    """A file, or a folder with files at any depth, in order of their names. A .zip counts as a folder.

    A folder whose files are all named for a split (``train.txt`` and ``val.txt``, folders ``train`` and
    ``validation``, ``train-00000-of-00004.parquet`` and the like) has its own split.

    Raises:
        DataError: No such path, a file of an unknown kind, or a folder without any readable file.
    """
    if path.is_file() and form_of(path.name) is None:
        raise DataError(f"cannot read {path}: litmoe reads {READS} and folders of them, {ALSO_COMPRESSED}")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(
            f"{path} is a pipe or device; write its text to a file, because it is read more than once"
        )
    if not path.exists():
        raise DataError(
            f"there is no file or folder {path}; --source takes 'sample', 'tinystories', or files and folders of "
            f"{READS}, {ALSO_COMPRESSED}"
        )
    listing = list_text(path)
    if not listing.files:
        raise DataError(no_text(path))
    notes, met = listing.lines(), Notes()

    # Every place with the split that its name, or that of a folder above it, tells.
    named: list[tuple[Split | None, Place]] = []
    for file in listing.files:
        name = listing.name(file) if path.is_dir() else ""
        for place in members(file, met) if file.suffix.lower() == ".zip" else [Place(file)]:
            named.append((_named_split(PurePosixPath(name, place.member or "")), place))
    notes += [f"{path}: {line}" for line in met.lines()]
    splits = {split for split, _ in named}
    if splits == {"train", "val"}:
        notes.append(f"{path}: uses its own split into training and validation text")
        in_val, in_train = (
            [place for split, place in named if split == wanted] for wanted in ("val", "train")
        )
        parts = [SourcePart("val", _reader(in_val, config)), SourcePart("train", _reader(in_train, config))]
    else:
        if {"train", "val"} < splits:
            other = next(place for split, place in named if split is None)
            notes.append(f"{path}: its own split is not used, because {other} belongs to neither part")
        parts = [SourcePart(None, _reader([place for _, place in named], config))]
    return Source(str(path), parts, files=listing.files, notes=notes)


def _reader(places: list[Place], config: PrepareConfig) -> Reader:
    def read(notes: Notes | None = None) -> Iterator[Piece]:
        return read_places(places, config.document_boundaries, config.text_field, notes=notes)

    return read


def _named_split(name: PurePosixPath) -> Split | None:
    """The split that a name tells: ``train.txt``, ``data/train-00000-of-00004.parquet``, ``val/a/b.txt``."""
    for part in name.parts:
        word = bare_stem(part).split("-")[0]
        if word in _SPLIT_NAMES:
            return _SPLIT_NAMES[word]
    return None


def _newest_revision(path: str) -> str | None:
    """The commit which the hub's default branch points to; None for a local folder."""
    if Path(path).is_dir():
        return None
    from huggingface_hub import HfApi

    return HfApi().dataset_info(path, timeout=20).sha


def _hub_rows(path: str, split: str, revision: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a data set's split, file by file as `datasets` finds them."""
    import datasets
    from huggingface_hub import hf_hub_download

    files = datasets.load_dataset_builder(path, revision=revision).config.data_files
    on_hub = f"hf://datasets/{path}@{revision}/"
    for file in files[split]:
        if file.startswith(on_hub):
            name = file.removeprefix(on_hub)
            file = hf_hub_download(path, name, repo_type="dataset", revision=revision)
        yield from datasets.load_dataset("parquet", data_files=file, split="train", streaming=True)


def _hub_error(path: str, error: Exception) -> DataError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DataError(
        f"cannot read {path} from the Hugging Face hub: {reason}; check the network and run the same command "
        "again (what is downloaded is kept), or use --source sample, which needs none"
    )
