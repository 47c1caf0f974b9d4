"""Checkpoint folders: written whole or not at all, verified before they are used.

A checkpoint is a folder with LitGPT's files (``lit_model.pth``, ``model_config.yaml``, tokenizer files,
``hyperparameters.yaml``, ``config.json``), so that LitGPT's commands work on it as it is, plus
``trainer_state.pth`` and ``manifest.json``, which holds the size and SHA-256 of every other file and is written
last. All of it is built in a temporary folder beside its final name, flushed to the disk, and renamed: at no
instant is there a partial checkpoint under a final name. A folder without a valid manifest is not a checkpoint.

Python has no call that exchanges two folders in one go. A checkpoint that replaces one of the same name (`final`)
is therefore for an instant only under its temporary name, whole and on the disk, and so is the one it replaces:
`clean` puts the newer one in place where a process was killed right then.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from litmoe.checkpoint.untrusted import load_weights
from litmoe.errors import DiskFullError, LitMoEError
from litmoe.messages import readable

MODEL = "lit_model.pth"
MODEL_CONFIG = "model_config.yaml"
SETTINGS = "hyperparameters.yaml"
TRAINER_STATE = "trainer_state.pth"
MANIFEST = "manifest.json"
HF_CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
)

FINAL = "final"
TENSOR_OVERHEAD = 1024  # bytes in torch's file for name, shape and alignment; mostly less than half of it

_FORMAT = 1
_TEMPORARY = ".tmp-"
_LEFT_OVER = re.compile(rf"\.({FINAL}|step-\d{{8,}}){re.escape(_TEMPORARY)}\d+(-old)?")
REMOVED = "manifest.removed.json"  # what the manifest is called while the files are being removed

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint."""

    step: int
    model: StateDict
    trainer: dict[str, Any] | None
    """Optimizer, counters and random-number states; None where there is nothing to go on with."""
    model_config: dict[str, Any]
    settings: dict[str, Any]
    tokenizer_dir: Path | None
    val_loss: float | None = None
    """Measured at this very step, in nats per token; None where it was not."""
    hf_config: dict[str, Any] | None = None
    """Transformers' config.json, which `litgpt evaluate` wants to find; None for a model it has no name for."""


@dataclass(frozen=True)
class Saved:
    """A step checkpoint of a run that lies on the disk."""

    step: int
    val_loss: float | None
    folder: Path


def step_folder(out_dir: Path, step: int) -> Path:
    return out_dir / f"step-{step:08d}"


def save(folder: Path, contents: Contents) -> None:
    """Write a checkpoint under its final name, replacing an older one of that name.

    Raises:
        DiskFullError: there is not enough room for it, which is mostly found out before anything is written.
        LitMoEError: the folder cannot be written. In either case nothing is left behind, and an older
            checkpoint of that name is as it was.
    """
    require_space(folder, contents)
    with _built_beside(folder) as building:
        torch.save(contents.model, building / MODEL)
        if contents.trainer is not None:
            torch.save(contents.trainer, building / TRAINER_STATE)
        if contents.hf_config is not None:
            (building / HF_CONFIG).write_text(json.dumps(contents.hf_config, indent=2), encoding="utf-8")
        for name, values in ((MODEL_CONFIG, contents.model_config), (SETTINGS, contents.settings)):
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
            (building / name).write_text(text, encoding="utf-8")
        if contents.tokenizer_dir is not None:
            for name in TOKENIZER_FILES:
                if (contents.tokenizer_dir / name).is_file():
                    shutil.copyfile(contents.tokenizer_dir / name, building / name)
        _write_manifest(building, contents)


def copy(source: Path, folder: Path) -> None:
    """The same checkpoint under a second name, by hard links where the file system has them.

    What else lies in the source's folder stays there.

    Raises:
        DiskFullError: it takes a real copy, and there is not enough room for it.
        LitMoEError: the source is no checkpoint, or the folder cannot be written.
    """
    names = [*verify(source, contents=False)["files"], MANIFEST]
    with _built_beside(folder) as building:
        for name in names:
            try:
                os.link(source / name, building / name)
            except OSError:  # no hard links here (FAT, some network drives): a real copy
                shutil.copyfile(source / name, building / name)


def size_in_bytes(contents: Contents) -> int:
    """About the size of the checkpoint's files: its tensors, and a generous ``TENSOR_OVERHEAD`` for each."""
    tensors = list(tensors_in([contents.model, contents.trainer]))
    files = [contents.tokenizer_dir / name for name in TOKENIZER_FILES] if contents.tokenizer_dir else []
    tokenizer = sum(path.stat().st_size for path in files if path.is_file())
    # torch.save writes memory that several tensors share once, and all of it.
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)}
    return sum(storages.values()) + TENSOR_OVERHEAD * len(tensors) + tokenizer + 32 * 1024


def require_space(folder: Path, contents: Contents) -> None:
    """Refuse to begin a checkpoint that the disk has no room for.

    Raises:
        DiskFullError: says how much is needed and free, and what to do.
    """
    needed, free = size_in_bytes(contents), free_bytes(folder)
    if free is not None and free < needed:
        raise DiskFullError(
            f"{folder}: not written, it needs {readable(needed)} and the disk has {readable(free)} free: "
            f"free some, or keep fewer checkpoints with --checkpoint.keep_last; {_GO_ON}"
        )


_GO_ON = "--resume auto goes on from the newest checkpoint"


def free_bytes(path: Path) -> int | None:
    """What the disk under a path, which need not exist yet, has free; None where it does not say."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples, in their order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(item)


def verify(folder: Path, contents: bool = True) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all there, whole and unchanged.

    Args:
        folder: the checkpoint.
        contents: also compare the checksums, reading every byte; else the sizes only.

    Raises:
        LitMoEError: not a checkpoint, or a damaged one, with the reason.
    """
    if not folder.is_dir():
        raise LitMoEError(f"{folder}: no such checkpoint folder")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (int(f["size"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        int(manifest["step"]), float(manifest["created"])
    except FileNotFoundError:
        raise LitMoEError(f"{folder}: not a checkpoint, it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LitMoEError(f"{folder}: not a valid checkpoint, its {MANIFEST} is damaged") from error
    for name, (size, digest) in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise LitMoEError(f"{folder}: damaged checkpoint, {name} is missing")
        if path.stat().st_size != size:
            raise LitMoEError(
                f"{folder}: damaged checkpoint, {name} has {path.stat().st_size} bytes, not {size}"
            )
        if contents and _sha256(path) != digest:
            raise LitMoEError(f"{folder}: damaged checkpoint, {name} does not have its checksum")
    if MODEL not in files or MODEL_CONFIG not in files:
        raise LitMoEError(
            f"{folder}: not a valid checkpoint, {MANIFEST} does not list {MODEL} and {MODEL_CONFIG}"
        )
    return dict(manifest)


def newest(out_dir: Path, say: Callable[[str], None], below: bool = False) -> Path | None:
    """The newest valid checkpoint of a run's folder, or None; damaged ones are named and skipped.

    Newest is the highest step, and of equal steps the one written last.

    Args:
        out_dir: the run's folder.
        say: gets a line for every checkpoint that is skipped.
        below: look in all folders below too, over several runs: then newest is the one written last.
    """
    candidates = []
    for path in out_dir.glob(f"**/{MANIFEST}" if below else f"*/{MANIFEST}"):
        if _TEMPORARY in path.parent.name:
            continue
        try:
            manifest = verify(path.parent, contents=False)
            candidates.append((manifest["step"], manifest["created"], path.parent))
        except LitMoEError as error:
            say(f"skipped: {error}")
    candidates.sort(key=lambda c: c[1] if below else c[:2])
    for *_, folder in reversed(candidates):
        try:
            verify(folder)
            return folder
        except LitMoEError as error:
            say(f"skipped: {error}")
    return None


def load_model(folder: Path) -> StateDict:
    """The weights, memory-mapped, LitGPT's names, in a folder of ours or of LitGPT's.

    Raises:
        LitMoEError: missing, damaged, or something else than weights.
    """
    return load_weights(folder / MODEL)


def load_trainer(folder: Path) -> dict[str, Any]:
    """The optimizer's state, counters and random-number states.

    Raises:
        LitMoEError: missing or damaged.
    """
    path = folder / TRAINER_STATE
    try:
        # weights_only: nothing is unpickled that could run code.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise LitMoEError(f"{folder}: not a checkpoint to go on from, it has no {path.name}") from None
    except Exception as error:  # torch raises a dozen kinds for a file that is not what it says it is
        raise LitMoEError(f"{path}: damaged or unsafe: {_reason(error)}") from error
    return state


def step_checkpoints(out_dir: Path) -> list[Saved]:
    """The step checkpoints of a run's folder whose files are all there, by step. ``final`` is not among them."""
    found = []
    for path in sorted(out_dir.glob(f"step-*/{MANIFEST}")):
        try:
            manifest = verify(path.parent, contents=False)
            if path.parent == step_folder(out_dir, int(manifest["step"])):
                found.append(Saved(manifest["step"], _loss_or_none(manifest.get("val_loss")), path.parent))
        except LitMoEError:
            continue  # damaged or another's: not for us to count, nor to remove
    return sorted(found, key=lambda saved: saved.step)


def remove(folder: Path) -> None:
    """Take a checkpoint away: first its manifest, in one go, then the files that the manifest names.

    So there is no instant with half a checkpoint. What else lies in the folder stays, and the folder with it.

    Raises:
        LitMoEError: it is not a checkpoint, or the disk refuses; `clean` finishes what was begun.
    """
    verify(folder, contents=False)
    try:
        (folder / MANIFEST).replace(folder / REMOVED)
        _flush(folder)
        _finish_removal(folder)
    except OSError as error:
        raise LitMoEError(f"{folder}: could not be removed: {_reason(error)}") from error


def clean(out_dir: Path) -> None:
    """Bring a run's folder in order after a kill: finish removals, drop what was being written.

    A whole checkpoint that only lacked its final name, and has no other there, gets it.
    Folders that are not of our making are left alone.
    """
    for marker in out_dir.glob(f"step-*/{REMOVED}"):
        with contextlib.suppress(OSError):
            _finish_removal(marker.parent)
    for folder in out_dir.glob("step-*"):
        with contextlib.suppress(OSError):  # not empty, as a rule; the last thing that a removal does
            folder.rmdir()
    left_over = [path for path in out_dir.glob(f".*{_TEMPORARY}*") if _LEFT_OVER.fullmatch(path.name)]
    for path in sorted(left_over, key=lambda path: path.name.endswith("-old")):  # the newer ones first
        folder = path.with_name(path.name[1:].partition(_TEMPORARY)[0])
        if not folder.exists():
            with contextlib.suppress(LitMoEError, OSError):
                verify(path)
                _rename(path, folder)
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _built_beside(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` when its files are written and on the disk."""
    building = folder.with_name(f".{folder.name}{_TEMPORARY}{os.getpid()}")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        yield building
        for path in building.iterdir():
            _flush(path)
        _flush(building)
        if folder.exists():
            replaced = folder.with_name(f"{building.name}-old")
            shutil.rmtree(replaced, ignore_errors=True)
            _rename(folder, replaced)
            try:
                _rename(building, folder)
            except OSError:
                _rename(replaced, folder)
                raise
            _flush(folder.parent)  # the old one is needed until the new name is on the disk
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            _rename(building, folder)
        _flush(folder.parent)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else _disk_error(building) or error
        if isinstance(cause, OSError) and cause.errno in _DISK_IS_FULL:
            raise DiskFullError(f"{folder}: not written, {_reason(cause)}: free some; {_GO_ON}") from error
        raise LitMoEError(f"{folder}: checkpoint could not be written: {_reason(cause)}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


_DISK_IS_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def _disk_error(building: Path) -> OSError | None:
    """What the disk has against more data; torch says of any trouble only that its file's length is wrong."""
    try:
        with (building / "probe").open("wb") as file:
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _rename(folder: Path, to: Path) -> None:
    """Rename a folder; on Windows try again while a virus scanner or a reader has a file in it open."""
    for seconds in (0.1, 0.3, 1.0, 3.0) if os.name == "nt" else ():
        with contextlib.suppress(PermissionError):
            folder.rename(to)
            return
        time.sleep(seconds)
    folder.rename(to)


def _finish_removal(folder: Path) -> None:
    """Remove the files that a marked folder's manifest names, the mark, and the folder if it is empty then."""
    try:
        names = list(json.loads((folder / REMOVED).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError):
        return  # not of our writing
    for name in names:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    (folder / REMOVED).unlink()
    with contextlib.suppress(OSError):  # something else lies there
        folder.rmdir()


def _loss_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _write_manifest(folder: Path, contents: Contents) -> None:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())
    }
    manifest = {
        "format": _FORMAT,
        "step": contents.step,
        "val_loss": _loss_or_none(contents.val_loss),
        "created": time.time(),
        "torch": torch.__version__,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows has no handle on a folder to flush
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return getattr(error, "strerror", None) or lines[0]
