"""What a checkpoint's folder holds: the names of its files, and the manifest that vouches for them.

It has LitGPT's files (``lit_model.pth``, ``model_config.yaml``, tokenizer files, ``hyperparameters.yaml``,
``config.json``), so that LitGPT's commands work on the folder as it is; besides them ``trainer_state.pth``, and
``manifest.json`` with the size and SHA-256 of every other file, written last. A folder without a valid manifest
is not a checkpoint of litmoe.
"""

import hashlib
import json
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litmoe.errors import CheckpointError
from litmoe.files import reason_of

MODEL = "lit_model.pth"
MODEL_CONFIG = "model_config.yaml"
SETTINGS = "hyperparameters.yaml"
TRAINER_STATE = "trainer_state.pth"
MANIFEST = "manifest.json"
REMOVED = "manifest.removed.json"
"""What the manifest is called while a checkpoint is being removed."""
HF_CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
)

FINAL = "final"

_FORMAT = 1
_TEMPORARY = ".tmp-"
_CHECKPOINT = rf"({FINAL}|step-\d{{8,}})"
_UNFINISHED = re.compile(rf"\.{_CHECKPOINT}{re.escape(_TEMPORARY)}\d+(-old)?")

StateDict = dict[str, Tensor]


class UnreadableError(CheckpointError):
    """What may be a checkpoint cannot be read. It may be whole, so it must not be written over."""


@dataclass(frozen=True)
class Contents:
    """What goes into a checkpoint."""

    step: int
    model: StateDict
    trainer: dict[str, Any] | None
    """Optimizer, counters and random-number states; None if training cannot continue from it."""
    model_config: dict[str, Any]
    settings: dict[str, Any]
    tokenizer_dir: Path | None
    val_loss: float | None = None
    """Measured at this very step, in nats per token; None if it was not."""
    hf_config: dict[str, Any] | None = None
    """Transformers' config.json, which ``litgpt evaluate`` looks for; None for a model that it has no name for."""


@dataclass(frozen=True)
class Saved:
    """A step checkpoint of a run that is on the disk."""

    step: int
    val_loss: float | None
    folder: Path


def step_folder(out_dir: Path, step: int) -> Path:
    """The folder of a step's checkpoint: ``out_dir/step-00000010``."""
    return out_dir / step_name(step)


def step_name(step: int) -> str:
    """The name of a step's checkpoint: ``step-00000010``."""
    return f"step-{step:08d}"


def has_checkpoint_name(name: str) -> bool:
    """Whether a run gives its checkpoints such a name: ``final`` or ``step-00000010``."""
    return re.fullmatch(_CHECKPOINT, name) is not None


def temporary_suffix() -> str:
    """What is added to a checkpoint's name, after a dot in front, while this process writes it."""
    return f"{_TEMPORARY}{os.getpid()}"


def is_temporary(name: str) -> bool:
    """Whether a name is one that a checkpoint has while it is written, or while another one replaces it."""
    return _TEMPORARY in name


def final_name(name: str) -> str | None:
    """The name that an unfinished checkpoint of a run was to get; None for any other name."""
    return name[1:].partition(_TEMPORARY)[0] if _UNFINISHED.fullmatch(name) else None


def write_manifest(folder: Path, step: int, val_loss: float | None) -> None:
    """Write the manifest of a folder that has all its other files. Reads every byte, for the checksums.

    Raises:
        OSError: the disk refuses.
    """
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    }
    manifest = {
        "format": _FORMAT,
        "step": step,
        "val_loss": finite_or_none(val_loss),
        "created": time.time(),
        "torch": torch.__version__,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
    """The manifest of a folder, and the size in bytes and SHA-256 of each of its files by name.

    Raises:
        UnreadableError: the folder or its manifest is there and cannot be read.
        CheckpointError: the manifest is missing, or is not one.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{folder}: not a checkpoint, it has no {MANIFEST}") from None
    except OSError as error:
        raise unreadable(folder / MANIFEST, error) from error
    except ValueError as error:
        raise CheckpointError(f"{folder}: not a valid checkpoint, its {MANIFEST} is damaged") from error
    try:
        manifest = json.loads(text)
        files = {str(name): (int(f["size"]), str(f["sha256"])) for name, f in manifest["files"].items()}
        counted = {"step": int(manifest["step"]), "created": float(manifest["created"])}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{folder}: not a valid checkpoint, its {MANIFEST} is damaged") from error
    return {**manifest, **counted}, files


def unreadable(path: Path, error: OSError) -> UnreadableError:
    """The error to raise for a file or folder that is there and cannot be read."""
    return UnreadableError(f"{path}: cannot be read: {reason_of(error)}; check its permissions and its disk")


def finite_or_none(value: Any) -> float | None:
    """A number as it is, None for NaN, infinity and what is no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def sha256(path: Path) -> str:
    """The checksum of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
