"""The text in the data folder: what is there, whose it is, and how new text takes its place.

``corpus.json`` says what prepare wrote. It is what tells prepare's files from a user's own, which are never
changed. New text is written to ``.preparing/`` and moved from there:

1. ``.preparing/`` is filled; its own ``corpus.json``, written last, says that it is complete.
2. The old text (of the old ``corpus.json``) is removed, the new is moved in, then the new ``corpus.json``.

A run that dies in 1 leaves rubbish, which the next removes; one that dies in 2 is finished by the next.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from litmoe.config import PrepareConfig
from litmoe.data.corpus import Source, open_sources
from litmoe.data.text_shards import write_sides
from litmoe.data.token_store import text_files
from litmoe.errors import LitMoEError

RECORD = "corpus.json"
_PENDING = ".preparing"


def with_source(config: PrepareConfig) -> PrepareConfig:
    """Fill in an empty ``source``: the sample, unless there is other text already."""
    if config.source:
        return config
    record = _read_record(config.data_dir / RECORD)
    was_sample = record is not None and record["request"]["source"] == ["sample"]
    if was_sample or not any((config.data_dir / "train").glob("*.txt")):
        return replace(config, source=["sample"])
    return config


def is_sample(config: PrepareConfig) -> bool:
    """Whether the text is, or will be, nothing but the built-in stories."""
    return config.source == ["sample"]


class TextPlan(NamedTuple):
    """What :func:`plan_text` decides."""

    sources: list[Source]
    """What to read; nothing if the text that is there is what is asked for."""
    changes: bool
    """Whether the text will be another than before. A lost file that is written again changes nothing."""


def plan_text(config: PrepareConfig, say: Callable[[str], None]) -> TextPlan:
    """Compare the text that is there with what is asked for, and change nothing yet.

    Raises:
        LitMoEError: A source is wrong, or the text that is there stands in the way.
    """
    data_dir = config.data_dir
    if not config.source:
        _refuse_reading_options(config)
        say(f"text: using what is in {data_dir / 'train'} ({len(text_files(data_dir / 'train'))} files)")
        return TextPlan([], changes=False)
    sources = open_sources(config)
    record = _read_record(data_dir / RECORD)
    texts = [path for side in ("train", "val") for path in sorted((data_dir / side).glob("*.txt"))]
    written = {entry["name"]: entry["size"] for entry in record["files"]} if record else {}
    for path in texts:
        if f"{path.parent.name}/{path.name}" not in written:
            raise LitMoEError(
                f"{path} was not written by prepare, and stays as it is; leave out --source to use the text in "
                f"{data_dir}, or give another --data-dir"
            )
    if record is None:
        return TextPlan(sources, changes=True)
    missing = []
    for name, size in written.items():
        path = data_dir / name
        if not path.is_file():
            missing.append(name)
        elif path.stat().st_size != size:
            raise LitMoEError(
                f"{path} changed since prepare wrote it; move it away to have it written again, or leave out "
                "--source to use it as it is"
            )
    difference = _difference(record, _request(config), _inputs(sources))
    if difference and not config.force:
        raise LitMoEError(
            f"{data_dir} holds text prepared from {', '.join(record['request']['source'])}, and {difference}; "
            "use --force to replace it, or give another --data-dir"
        )
    if difference is None and not missing:
        say(f"text: already prepared in {data_dir} from {', '.join(record['request']['source'])}")
        return TextPlan([], changes=False)
    say(f"text: prepared again, {difference or f'{missing[0]} is missing'}")
    return TextPlan(sources, changes=difference is not None)


def write_text(config: PrepareConfig, sources: list[Source], say: Callable[[str], None]) -> None:
    """Write the text of ``sources`` beside its final place, then move it there.

    Raises:
        LitMoEError: A source or the disk fails. Then the text is as it was.
    """
    pending = config.data_dir / _PENDING
    for source in sources:
        for note in source.notes:
            say(note)
    inputs = _inputs(sources)  # before reading: a file that changes meanwhile is noticed next time
    try:
        pending.mkdir()
        written = write_sides(sources, config, pending)
        if written.dropped:
            say(f"text: dropped {written.dropped:,} training documents that are in the validation text too")
        record = {
            "written_by": "litmoe prepare",
            "request": _request(config),
            "inputs": inputs,
            "origins": {source.name: source.origin for source in sources if source.origin},
            "train": {"documents": written.train.documents, "bytes": written.train.n_bytes},
            "val": {"documents": written.val.documents, "bytes": written.val.n_bytes},
            "dropped_from_train": written.dropped,
            "files": written.train.files + written.val.files,
        }
        part = pending / "corpus.part"
        part.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8", newline="\n")
        part.replace(pending / RECORD)
    except OSError as error:
        shutil.rmtree(pending, ignore_errors=True)
        raise LitMoEError(
            f"cannot write text in {config.data_dir}: {error.strerror or error}; check space and permissions"
        ) from error
    except BaseException:
        shutil.rmtree(pending, ignore_errors=True)
        raise
    _move_in(config.data_dir)


def finish_interrupted(data_dir: Path, say: Callable[[str], None]) -> None:
    """Complete or clear away what a killed :func:`write_text` left."""
    pending = data_dir / _PENDING
    if _read_record(pending / RECORD) is not None:
        say("text: finishing what an interrupted prepare had written")
        _move_in(data_dir)
    elif pending.exists():
        shutil.rmtree(pending)


def _move_in(data_dir: Path) -> None:
    """Step 2 of the module's docstring. May be repeated from any point at which it was cut off."""
    pending = data_dir / _PENDING
    new, old = _read_record(pending / RECORD), _read_record(data_dir / RECORD)
    assert new is not None
    names = [entry["name"] for entry in new["files"]]
    try:
        for name in [entry["name"] for entry in old["files"]] if old else []:
            if name not in names:
                (data_dir / name).unlink(missing_ok=True)
        for name in names:
            (data_dir / name).parent.mkdir(exist_ok=True)
            if (pending / name).exists():
                (pending / name).replace(data_dir / name)
        (pending / RECORD).replace(data_dir / RECORD)
        shutil.rmtree(pending, ignore_errors=True)
    except OSError as error:
        raise LitMoEError(
            f"cannot replace the text in {data_dir}: {error.strerror or error}; check that no other program has "
            "it open, then run litmoe prepare again"
        ) from error


def _request(config: PrepareConfig) -> dict[str, Any]:
    """The settings that decide the text. Paths absolute: the same name elsewhere is another source."""
    builtin = ("sample", "tinystories")
    return {
        "source": [name if name in builtin else Path(name).resolve().as_posix() for name in config.source],
        "split": config.split,
        "text_field": config.text_field,
        "val_fraction": config.val_fraction,
        "max_documents": config.max_documents,
        "seed": config.seed if "sample" in config.source else None,
    }


def _inputs(sources: list[Source]) -> list[dict[str, Any]]:
    stats = [(path, path.stat()) for source in sources for path in source.files]
    return [
        {"path": path.resolve().as_posix(), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        for path, stat in stats
    ]


def _difference(record: dict[str, Any], request: dict[str, Any], inputs: list[dict[str, Any]]) -> str | None:
    """What distinguishes the recorded request from this one, in words."""
    for key, value in request.items():
        if (old := record["request"].get(key)) != value:
            return f"{key} was {old}, now {value}"
    before = {entry["path"]: entry for entry in record["inputs"]}
    for entry in inputs:
        if before.pop(entry["path"], None) != entry:
            return f"{entry['path']} changed since"
    return f"{next(iter(before))} is gone since" if before else None


def _refuse_reading_options(config: PrepareConfig) -> None:
    defaults = PrepareConfig()
    for name in ("split", "text_field", "max_documents", "seed"):
        if getattr(config, name) != getattr(defaults, name):
            raise LitMoEError(
                f"--{name.replace('_', '-')} works on text read with --source, not on the text that lies in "
                f"{config.data_dir / 'train'}; name a source and another --data-dir"
            )


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if all(key in record for key in ("request", "inputs", "files")):
            return dict(record)
    except (OSError, ValueError, TypeError):
        pass
    raise LitMoEError(
        f"{path} is damaged, so prepare cannot tell its files from yours; remove it and the text beside it, or "
        "give another --data-dir"
    )


def text_fingerprint(data_dir: Path) -> str:
    """A hash of the training text, that of recorded files which are lost included.

    Reads the text only where the record does not have its hash already.
    """
    record = _read_record(data_dir / RECORD)
    known = {entry["name"]: entry for entry in record["files"]} if record else {}
    digests = {name: entry["sha256"] for name, entry in known.items() if name.startswith("train/")}
    for path in (data_dir / "train").glob("*.txt"):
        entry = known.get(f"train/{path.name}")
        if entry is None or entry["size"] != path.stat().st_size:
            with path.open("rb") as file:
                digests[f"train/{path.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()
