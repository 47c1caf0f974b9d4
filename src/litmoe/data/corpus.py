"""Where documents come from: the built-in sample, TinyStories from the hub, and files and folders.

A source is a list of parts. A part knows its side of the split ("train" or "val"), or leaves it to a hash of
each document (None); its documents can be read as often as wanted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from litmoe.config import PrepareConfig
from litmoe.data.documents import Piece
from litmoe.data.formats import SUFFIXES, read_documents, text_documents
from litmoe.errors import LitMoEError

Side = Literal["train", "val"]

TINY_STORIES = "roneneldan/TinyStories"
_TINY_STORIES_LICENCE = "CDLA-Sharing-1.0"

_SIDE_WORDS: dict[str, Side] = {"train": "train", "val": "val", "valid": "val", "validation": "val"}


@dataclass
class SourcePart:
    """Documents that share a side."""

    side: Side | None
    read: Callable[[], Iterator[Piece]]


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
        LitMoEError: A name is neither built in nor a file or folder with text in it.
    """
    sources = []
    for name in config.source:
        if name == "sample":
            sources.append(sample(config.max_documents, config.seed))
        elif name == "tinystories":
            sources.append(tiny_stories())
        else:
            sources.append(local_source(Path(name), config))
    return sources


def sample(max_documents: int | None = None, seed: int = 0) -> Source:
    """The built-in stories."""
    from litmoe.stories import SAMPLE_STORIES, stories

    count = SAMPLE_STORIES if max_documents is None else min(max_documents, SAMPLE_STORIES)

    def read() -> Iterator[Piece]:
        for story in stories(count, seed):
            yield from text_documents(story)

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

    def reader(split: str) -> Callable[[], Iterator[Piece]]:
        def read() -> Iterator[Piece]:
            try:
                # Both splits from one revision, whatever is pushed to the hub in between.
                if "revision" not in origin:
                    origin["revision"] = _newest_revision(path)
                for row in _hub_rows(path, split, origin["revision"]):
                    if not isinstance(row.get("text"), str):
                        raise LitMoEError(
                            f"{path} has no column of strings named 'text'; it may have changed"
                        )
                    yield from text_documents(row["text"])
            except (LitMoEError, GeneratorExit):
                raise
            except Exception as error:  # hub, HTTP and OS errors share no base class
                raise _hub_error(path, error) from error

        return read

    parts = [SourcePart("val", reader("validation")), SourcePart("train", reader("train"))]
    note = f"tinystories: {path}, licence {_TINY_STORIES_LICENCE}, with its own validation split"
    return Source("tinystories", parts, notes=[note], origin=origin)


def local_source(path: Path, config: PrepareConfig) -> Source:
    """A file, or a folder with files at any depth, in order of their names.

    A folder whose entries are all named for a side (``train.txt`` and ``val.txt``, folders ``train`` and
    ``validation``, ``train-00000-of-00004.parquet`` and the like) has its own split.

    Raises:
        LitMoEError: No such path, a file of an unknown kind, or a folder without any readable file.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise LitMoEError(
                f"cannot read {path}: litmoe reads {', '.join(SUFFIXES)} files and folders of them"
            )
        return Source(str(path), [SourcePart(None, _files_reader([path], config))], files=[path])
    if not path.is_dir():
        raise LitMoEError(
            f"there is no file or folder {path}; --source takes 'sample', 'tinystories', or files and folders "
            f"of {', '.join(SUFFIXES)}"
        )
    files, ignored = _walk(path)
    if not files:
        raise LitMoEError(f"no {', '.join(SUFFIXES)} file in the folder {path} or below it")
    notes = []
    if ignored:
        names = ", ".join(file.name for file in ignored[:3])
        notes.append(f"{path}: left out {len(ignored)} files of other kinds ({names})")
    sides: dict[Side | None, list[Path]] = {}
    for file in files:
        sides.setdefault(_named_side(file.relative_to(path)), []).append(file)
    if set(sides) == {"train", "val"}:
        notes.append(f"{path}: uses its own split into training and validation text")
        parts = [SourcePart(side, _files_reader(sides[side], config)) for side in ("val", "train")]
    else:
        parts = [SourcePart(None, _files_reader(files, config))]
    return Source(str(path), parts, files=files, notes=notes)


def _files_reader(files: list[Path], config: PrepareConfig) -> Callable[[], Iterator[Piece]]:
    def read() -> Iterator[Piece]:
        for file in files:
            yield from read_documents(file, config.split, config.text_field)

    return read


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """The readable files below a folder, and the others. Hidden ones are neither."""
    try:
        paths = [path for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise LitMoEError(
            f"cannot list {folder}: {error.strerror or error}; check its permissions"
        ) from error
    paths = [path for path in paths if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    paths.sort(key=lambda path: path.relative_to(folder).parts)
    readable = [path for path in paths if path.suffix.lower() in SUFFIXES]
    return readable, [path for path in paths if path.suffix.lower() not in SUFFIXES]


def _named_side(relative: Path) -> Side | None:
    """The side that a path names: ``train.txt``, ``data/train-00000-of-00004.parquet``, ``val/a/b.txt``."""
    for part in relative.parts:
        word = Path(part).stem.lower().split("-")[0]
        if word in _SIDE_WORDS:
            return _SIDE_WORDS[word]
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


def _hub_error(path: str, error: Exception) -> LitMoEError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return LitMoEError(
        f"cannot read {path} from the Hugging Face hub: {reason}; check the network and run the same command "
        "again (what is downloaded is kept), or use --source sample, which needs none"
    )
