"""Checkpoint folders: written whole or not at all, verified before they are used.

A checkpoint is a folder with LitGPT's files (``lit_model.pth``, ``model_config.yaml``, tokenizer files,
``hyperparameters.yaml``), so that LitGPT's commands work on it as it is, plus ``trainer_state.pth`` and
``manifest.json``, which holds the size and SHA-256 of every other file and is written last. All of it is built in
a temporary folder beside its final name, flushed to the disk, and renamed: at no instant is there a partial
checkpoint under a final name. A folder without a valid manifest is not a checkpoint.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from litmoe.errors import LitMoEError

MODEL = "lit_model.pth"
MODEL_CONFIG = "model_config.yaml"
SETTINGS = "hyperparameters.yaml"
TRAINER_STATE = "trainer_state.pth"
MANIFEST = "manifest.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
)

_FORMAT = 1
_TEMPORARY = ".tmp-"

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint."""

    step: int
    model: StateDict
    trainer: dict[str, Any]
    model_config: dict[str, Any]
    settings: dict[str, Any]
    tokenizer_dir: Path | None


def step_folder(out_dir: Path, step: int) -> Path:
    return out_dir / f"step-{step:08d}"


def save(folder: Path, contents: Contents) -> None:
    """Write a checkpoint under its final name, replacing an older one of that name.

    Raises:
        LitMoEError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    with _built_beside(folder) as building:
        torch.save(contents.model, building / MODEL)
        torch.save(contents.trainer, building / TRAINER_STATE)
        for name, values in ((MODEL_CONFIG, contents.model_config), (SETTINGS, contents.settings)):
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
            (building / name).write_text(text, encoding="utf-8")
        if contents.tokenizer_dir is not None:
            for name in TOKENIZER_FILES:
                if (contents.tokenizer_dir / name).is_file():
                    shutil.copyfile(contents.tokenizer_dir / name, building / name)
        _write_manifest(building, contents.step)


def copy(source: Path, folder: Path) -> None:
    """The same checkpoint under a second name, by hard links where the file system has them.

    Raises:
        LitMoEError: the folder cannot be written.
    """
    with _built_beside(folder) as building:
        for path in source.iterdir():
            try:
                os.link(path, building / path.name)
            except OSError:  # no hard links here (FAT, some network drives): a real copy
                shutil.copyfile(path, building / path.name)


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
    """The weights, memory-mapped, LitGPT's names.

    Raises:
        LitMoEError: missing or damaged.
    """
    state: StateDict = _load(folder / MODEL, mmap=True)
    # LitGPT's own training wraps the weights together with its optimizer.
    return state.get("model", state)  # type: ignore[return-value]


def load_trainer(folder: Path) -> dict[str, Any]:
    """The optimizer's state, counters and random-number states.

    Raises:
        LitMoEError: missing or damaged.
    """
    state: dict[str, Any] = _load(folder / TRAINER_STATE, mmap=False)
    return state


def clean(out_dir: Path) -> None:
    """Remove what a killed run was just writing."""
    for path in out_dir.glob(f".*{_TEMPORARY}*"):
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
            replaced = folder.with_name(f".{folder.name}{_TEMPORARY}{os.getpid()}-old")
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
            building.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            building.rename(folder)
        _flush(folder.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise LitMoEError(f"{folder}: checkpoint could not be written: {_reason(error)}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_manifest(folder: Path, step: int) -> None:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())
    }
    manifest = {
        "format": _FORMAT,
        "step": step,
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


def _load(path: Path, mmap: bool) -> Any:
    try:
        # weights_only: nothing is unpickled that could run code.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise LitMoEError(f"{path.parent}: not a checkpoint to go on from, it has no {path.name}") from None
    except Exception as error:  # torch raises a dozen kinds for a file that is not what it says it is
        raise LitMoEError(f"{path}: damaged or unsafe: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return getattr(error, "strerror", None) or lines[0]
