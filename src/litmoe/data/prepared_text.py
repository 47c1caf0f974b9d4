"""The text in the data folder: what is there, whose it is, and how new text takes its place.

New text is written to ``.preparing/`` and moved from there:

1. ``.preparing/`` is filled; its own ``corpus.json``, written last, says that it is complete.
2. The old text (of the old ``corpus.json``) is removed, the new is moved in, then the new ``corpus.json``.

A run that dies in 1 leaves rubbish, which the next removes; one that dies in 2 is finished by the next.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from litmoe.config import PrepareConfig
from litmoe.data.corpus import Source, open_sources
from litmoe.data.corpus_record import (
    RECORD,
    difference,
    inputs_of,
    read_record,
    request_of,
    texts_in,
)
from litmoe.data.reading.listing import Listing, has_text, is_own_folder, list_text
from litmoe.data.splitting import write_splits
from litmoe.errors import DataError, DiskFullError, LitMoEError
from litmoe.files import is_disk_full, reason_of, rename, write_text
from litmoe.messages import Say, readable, silent

_PENDING = ".preparing"


def with_source(config: PrepareConfig) -> PrepareConfig:
    """Fill in an empty ``source``: the sample, unless there is other text already.

    Raises:
        DataError: There is text of somebody's beside the sample, or for validation alone.
    """
    if config.source:
        return config
    record = read_record(config.data_dir / RECORD)
    written = {entry["name"] for entry in record["files"]} if record else set()
    own = [path for name, path in texts_in(config.data_dir) if name not in written]
    if record is not None and record["request"]["source"] == ["sample"]:
        if own:
            raise DataError(
                f"{own[0]} lies among the built-in stories, which are not mixed with other text; move it away, or "
                "name it with --source and give another --data-dir"
            )
    elif has_text(config.data_dir / "train"):
        return config
    elif own:
        raise DataError(
            f"{own[0]} is for validation, and there is no text to train on in {config.data_dir / 'train'}; put it "
            "there, or name it with --source and give another --data-dir"
        )
    return replace(config, source=["sample"])


def is_sample(config: PrepareConfig) -> bool:
    """Whether the text is, or will be, nothing but the built-in stories."""
    return config.source == ["sample"]


class TextStatus(NamedTuple):
    """How the text in the data folder compares with what is asked for."""

    sources: list[Source]
    """What to read; nothing if the text that is there is what is asked for."""
    changes: bool
    """Whether the text will be another than before. A lost file that is written again changes nothing."""


def check_text(config: PrepareConfig, say: Say = silent) -> TextStatus:
    """Compare the text that is there with what is asked for, and change nothing yet.

    Raises:
        DataError: A source is wrong, or the text that is there stands in the way.
    """
    data_dir = config.data_dir
    if not config.source:
        _refuse_reading_options(config)
        listing = list_text(data_dir / "train")
        say(f"text: using what is in {data_dir / 'train'} ({_how_much(listing)})")
        return TextStatus([], changes=False)
    sources = open_sources(config)
    record = read_record(data_dir / RECORD)
    written = {entry["name"]: entry["size"] for entry in record["files"]} if record else {}
    for name, path in texts_in(data_dir):
        if name not in written:
            raise DataError(
                f"{path} was not written by prepare, and stays as it is; leave out --source to use the text in "
                f"{data_dir}, or give another --data-dir"
            )
    if record is None:
        if "sample" in config.source:
            _refuse_mixing(config)
        return TextStatus(sources, changes=True)
    missing = []
    for name, size in written.items():
        path = data_dir / name
        if not path.is_file():
            missing.append(name)
        elif path.stat().st_size != size:
            raise DataError(
                f"{path} changed since prepare wrote it; move it away to have it written again, or leave out "
                "--source to use it as it is"
            )
    change = difference(record, request_of(config), inputs_of(sources))
    if change and not config.force:
        raise DataError(
            f"{data_dir} holds text prepared from {', '.join(record['request']['source'])}, and {change}; "
            "use --force to replace it, or give another --data-dir"
        )
    if change is None and not missing:
        say(f"text: already prepared in {data_dir} from {', '.join(record['request']['source'])}")
        return TextStatus([], changes=False)
    say(f"text: prepared again, {change or f'{missing[0]} is missing'}")
    return TextStatus(sources, changes=change is not None)


def replace_text(config: PrepareConfig, sources: list[Source], say: Say = silent) -> None:
    """Write the text of ``sources`` beside its final place, then move it there.

    Raises:
        DataError: A source fails. DiskFullError, LitMoEError: the disk does. Then the text is as it was.
    """
    pending = config.data_dir / _PENDING
    for source in sources:
        for note in source.notes:
            say(note)
    inputs = inputs_of(sources)  # before reading: a file that changes meanwhile is noticed next time
    try:
        pending.mkdir()
        written = write_splits(sources, config, pending)
        for line in written.lines():
            say(f"text: {line}")
        record = {
            "written_by": "litmoe prepare",
            "request": request_of(config),
            "inputs": inputs,
            "origins": {source.name: source.origin for source in sources if source.origin},
            "train": {"documents": written.train.documents, "bytes": written.train.n_bytes},
            "val": {"documents": written.val.documents, "bytes": written.val.n_bytes},
            "dropped_from_train": written.dropped,
            "files": written.train.files + written.val.files,
        }
        write_text(pending / RECORD, json.dumps(record, indent=1, ensure_ascii=False))
    except OSError as error:
        if isinstance(error, LitMoEError):
            raise
        kind = DiskFullError if is_disk_full(error) else DataError
        raise kind(
            f"cannot write text in {config.data_dir}: {reason_of(error)}; check space and permissions"
        ) from error
    finally:
        if not (pending / RECORD).exists():
            shutil.rmtree(pending, ignore_errors=True)
    _move_in(config.data_dir)


def is_interrupted(data_dir: Path) -> bool:
    """Whether another process is writing text, or was killed while it did."""
    return (data_dir / _PENDING).exists()


def finish_interrupted(data_dir: Path, say: Say) -> None:
    """Complete or clear away what a killed :func:`replace_text` left."""
    pending = data_dir / _PENDING
    if read_record(pending / RECORD) is not None:
        say("text: finishing what an interrupted prepare had written")
        _move_in(data_dir)
    elif pending.exists():
        shutil.rmtree(pending)


def _move_in(data_dir: Path) -> None:
    """Step 2 of the module's docstring. May be repeated from any point at which it was cut off."""
    pending = data_dir / _PENDING
    new, old = read_record(pending / RECORD), read_record(data_dir / RECORD)
    assert new is not None
    names = [entry["name"] for entry in new["files"]]
    try:
        for name in [entry["name"] for entry in old["files"]] if old else []:
            if name not in names:
                (data_dir / name).unlink(missing_ok=True)
        for name in names:
            (data_dir / name).parent.mkdir(exist_ok=True)
            if (pending / name).exists():
                rename(pending / name, data_dir / name)
        rename(pending / RECORD, data_dir / RECORD)
        shutil.rmtree(pending, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot replace the text in {data_dir}: {reason_of(error)}; check that no other program has "
            "it open, then run litmoe prepare again"
        ) from error


def _refuse_reading_options(config: PrepareConfig) -> None:
    defaults = PrepareConfig()
    for name in ("document_boundaries", "text_field", "max_documents", "seed"):
        if getattr(config, name) != getattr(defaults, name):
            raise DataError(
                f"--{name.replace('_', '-')} works on text read with --source, not on the text that lies in "
                f"{config.data_dir / 'train'}; name a source and another --data-dir"
            )


def _how_much(listing: Listing) -> str:
    size = sum(path.stat().st_size for path in listing.files)
    return f"{len(listing.files):,} {'file' if len(listing.files) == 1 else 'files'}, {readable(size)}"


def _refuse_mixing(config: PrepareConfig) -> None:
    """The built-in stories do not go into a folder with anything of somebody's in it.

    Raises:
        DataError: It holds a file that is not litmoe's.
    """
    data_dir, tokenizer_dir = config.data_dir, config.tokenizer_dir.resolve()
    for folder, folders, names in os.walk(data_dir):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and Path(folder, name).resolve() != tokenizer_dir
        ]
        foreign = sorted(name for name in names if not name.startswith("."))
        if foreign and not is_own_folder(Path(folder)):
            raise DataError(
                f"{Path(folder, foreign[0])} is not litmoe's, and the built-in stories are not mixed into folders "
                f"of others; move text to train on into {data_dir / 'train'}, or name it with --source, or give "
                "another --data-dir"
            )
