"""Finding checkpoints, verifying them, and loading what they hold."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from litmoe.checkpoint.layout import (
    MANIFEST,
    MODEL,
    MODEL_CONFIG,
    REMOVED,
    TRAINER_STATE,
    Saved,
    StateDict,
    UnreadableError,
    finite_or_none,
    has_checkpoint_name,
    is_temporary,
    read_manifest,
    sha256,
    step_folder,
    unreadable,
)
from litmoe.checkpoint.untrusted import load_weights
from litmoe.errors import CheckpointError
from litmoe.files import reason_of
from litmoe.messages import Say


def verify(folder: Path, contents: bool = True) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all there, whole and unchanged.

    Args:
        folder: the checkpoint.
        contents: also compare the checksums, reading every byte; else the sizes only.

    Raises:
        UnreadableError: it may be a checkpoint, but the folder or one of its files cannot be read.
        CheckpointError: not a checkpoint, or a damaged one, with the reason.
    """
    if not os.path.lexists(folder):
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    if not _is_folder(folder):
        raise CheckpointError(f"{folder}: a file, not a checkpoint folder")
    manifest, files = read_manifest(folder)
    for name, (size, digest) in files.items():
        path = folder / name
        try:
            if Path(name).name != name or not path.is_file():
                raise CheckpointError(f"{folder}: damaged checkpoint, {name} is missing")
            found = path.stat().st_size
            if found != size:
                raise CheckpointError(f"{folder}: damaged checkpoint, {name} has {found} bytes, not {size}")
            if contents and sha256(path) != digest:
                raise CheckpointError(f"{folder}: damaged checkpoint, {name} does not have its checksum")
        except FileNotFoundError:  # another process has just removed it
            raise CheckpointError(f"{folder}: damaged checkpoint, {name} is missing") from None
        except OSError as error:
            raise unreadable(path, error) from error
    if MODEL not in files or MODEL_CONFIG not in files:
        raise CheckpointError(
            f"{folder}: not a valid checkpoint, {MANIFEST} does not list {MODEL} and {MODEL_CONFIG}"
        )
    return manifest


def newest(out_dir: Path, say: Say, below: bool = False) -> Path | None:
    """The newest valid checkpoint of a run's folder, or None if there is no checkpoint in it at all.

    Newest is the highest step, and of equal steps the one written last. Damaged checkpoints are named and skipped
    for an older one.

    Args:
        out_dir: the run's folder.
        say: gets a line for every checkpoint that is skipped.
        below: search all folders below too, over several runs: then newest is the one written last.

    Raises:
        UnreadableError: the folder, or what may be a checkpoint in it, cannot be read. Below, such folders are
            named and skipped.
        CheckpointError: there are checkpoints, and none of them is valid. Starting over there would replace them.
    """
    found, unusable = [], []
    for folder in _candidates_below(out_dir, say) if below else _candidates(out_dir):
        try:
            manifest = verify(folder, contents=False)
            found.append((manifest["step"], manifest["created"], folder))
        except CheckpointError as error:
            if isinstance(error, UnreadableError) and not below:
                raise
            if os.path.lexists(folder / MANIFEST):
                say(f"skipped: {error}")
            unusable.append(error)
    found.sort(key=lambda one: one[1] if below else one[:2])
    for *_, folder in reversed(found):
        try:
            verify(folder)
            return folder
        except CheckpointError as error:
            if isinstance(error, UnreadableError) and not below:
                raise
            say(f"skipped: {error}")
            unusable.append(error)
    if unusable and not below:
        raise CheckpointError(
            f"{unusable[-1]}; {out_dir} holds {_counted(len(unusable))} that cannot be used: "
            "restore one, move them away, or choose another folder"
        )
    return None


def step_checkpoints(out_dir: Path) -> list[Saved]:
    """The step checkpoints of a run's folder whose files are all there, by step. ``final`` is not among them.

    Damaged and unreadable ones are left out: this is for counting and removing, not for resuming (`newest`).

    Raises:
        UnreadableError: the folder itself cannot be read.
    """
    found = []
    for folder in _entries(out_dir):
        try:
            manifest = verify(folder, contents=False) if _may_be_checkpoint(folder) else None
        except CheckpointError:
            continue
        if manifest is not None and folder == step_folder(out_dir, int(manifest["step"])):
            found.append(Saved(manifest["step"], finite_or_none(manifest.get("val_loss")), folder))
    return sorted(found, key=lambda saved: saved.step)


def load_model(folder: Path) -> StateDict:
    """The weights, memory-mapped, by LitGPT's names, from a checkpoint of litmoe's or LitGPT's.

    Raises:
        CheckpointError: missing, damaged, or something else than weights.
    """
    return load_weights(folder / MODEL)


def is_tied(weights: StateDict) -> bool:
    """Whether the token embedding is the language-model head too, by its values."""
    head, embedding = weights.get("lm_head.weight"), weights.get("transformer.wte.weight")
    if head is None or embedding is None:
        return False
    return head.data_ptr() == embedding.data_ptr() or torch.equal(head, embedding)


def load_trainer(folder: Path) -> dict[str, Any]:
    """The optimizer's state, counters and random-number states.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = folder / TRAINER_STATE
    try:
        # weights_only: nothing is unpickled that could run code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: not a checkpoint to continue from, it has no {path.name}") from None
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # torch raises a dozen kinds for a file that is not what it says it is
        raise CheckpointError(f"{path}: damaged or unsafe: {reason_of(error)}") from error
    return state


def _candidates(out_dir: Path) -> list[Path]:
    """Whatever in a run's folder is a checkpoint, or may be one that is damaged; by name.

    Raises:
        UnreadableError: the folder, or one in it with a checkpoint's name, cannot be read.
    """
    return [path for path in _entries(out_dir) if _may_be_checkpoint(path)]


def _entries(out_dir: Path) -> list[Path]:
    """What lies in a run's folder, but for checkpoints that are being written; by name.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        out_dir.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # a folder above is closed
        raise unreadable(out_dir, error) from error
    if not _is_folder(out_dir):
        raise UnreadableError(f"{out_dir}: a file where a folder of checkpoints should be")
    try:
        return sorted(path for path in out_dir.iterdir() if not is_temporary(path.name))
    except OSError as error:
        raise unreadable(out_dir, error) from error


def _may_be_checkpoint(path: Path) -> bool:
    """Whether a path in a run's folder is a checkpoint, or has a checkpoint's name and may be one.

    Raises:
        UnreadableError: a folder with a checkpoint's name cannot be read.
    """
    if not has_checkpoint_name(path.name):
        return os.path.lexists(path / MANIFEST)
    if not _is_folder(path):
        return True
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:  # another process has just removed it
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    # One without a manifest may be LitGPT's. One that is being removed is a checkpoint no more.
    return bool(names & {MANIFEST, MODEL, TRAINER_STATE}) and REMOVED not in names


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, or a link to one.

    Raises:
        UnreadableError: the system does not say, or a link leads nowhere, as to a disk that is not mounted.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if not os.path.lexists(path):  # another process has just removed it
            return False
        raise unreadable(path, error) from error


def _candidates_below(root: Path, say: Say) -> Iterator[Path]:
    """All folders with a manifest, at any depth. Links to folders are followed; each folder comes once."""

    def skip(error: OSError) -> None:
        say(f"skipped: {unreadable(Path(error.filename), error)}")

    seen = set()
    for name, folders, files in os.walk(root, onerror=skip, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if MANIFEST in files and not is_temporary(Path(name).name):
            yield Path(name)


def _counted(count: int) -> str:
    return "a checkpoint" if count == 1 else f"{count} checkpoints"
