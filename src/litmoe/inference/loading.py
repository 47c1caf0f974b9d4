"""A checkpoint folder as a model ready to use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from litgpt import Tokenizer

from litmoe import checkpoint
from litmoe.config.files import read_yaml
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import LitMoEError
from litmoe.messages import one_line
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on its device, and what belongs to it."""

    folder: Path
    model: GPT
    tokenizer: Tokenizer
    settings: dict[str, object]
    """The configuration it was trained with; empty for a checkpoint that LitGPT wrote."""


def load_checkpoint(folder: Path | str | None = None, accelerator: str = "auto") -> LoadedModel:
    """Load a checkpoint of ours, or a folder of LitGPT's.

    Args:
        folder: the checkpoint; None: the newest valid one below ``checkpoints``.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        LitMoEError: there is none, it is damaged, or the device is not there.
    """
    folder = find_checkpoint(folder, print)
    device = pick_device(accelerator)
    config = load_model_config(folder / checkpoint.MODEL_CONFIG)
    tokenizer = load_tokenizer(folder)
    with torch.device("meta"):
        model = GPT(config)
    state = checkpoint.load_model(folder)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise LitMoEError(
            f"{folder}: the weights are not of its model_config.yaml: {one_line(error)[:200]}"
        ) from error
    model.cos, model.sin = model.rope_cache()  # no checkpoint holds the rotary tables
    settings_file = folder / checkpoint.SETTINGS
    settings = read_yaml(settings_file) if settings_file.is_file() else {}
    return LoadedModel(folder, model.to(device).eval(), tokenizer, settings)


def find_checkpoint(folder: Path | str | None, say: Callable[[str], None]) -> Path:
    """The checkpoint asked for, verified; or the newest valid one below ``checkpoints``.

    A run's output folder stands for its newest checkpoint.

    Raises:
        LitMoEError: there is none, or it is damaged.
    """
    root = Path(folder) if folder is not None else Path("checkpoints")
    if folder is not None and (root / checkpoint.MANIFEST).is_file():
        checkpoint.verify(root)
        return root
    if (
        folder is not None
        and (root / checkpoint.MODEL).is_file()
        and (root / checkpoint.MODEL_CONFIG).is_file()
    ):
        return root  # LitGPT wrote it: it has no manifest to check
    if folder is not None and not root.is_dir():
        raise LitMoEError(f"{root}: no such checkpoint folder")
    found = checkpoint.newest(root, say, below=folder is None) if root.is_dir() else None
    if found is None:
        hint = "train a model first, or name one with --checkpoint" if folder is None else "name another"
        raise LitMoEError(f"{root}: holds no valid checkpoint: {hint}")
    return found


def pick_device(accelerator: str) -> torch.device:
    """The device to run a single model on.

    Raises:
        LitMoEError: it is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = "cuda" if there["cuda"] else "cpu"
    if not there[accelerator]:
        raise LitMoEError(f"accelerator {accelerator}: torch sees no such device here: use --accelerator cpu")
    return torch.device(accelerator)
