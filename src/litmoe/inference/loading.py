"""A checkpoint folder as a model ready to use."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from litmoe import checkpoint
from litmoe.config.files import read_yaml
from litmoe.data.tokenizer_folder import (
    TextTokenizer,
    load_text_tokenizer,
    load_tokenizer,
    vocabulary_size,
)
from litmoe.errors import CheckpointError, ConfigError
from litmoe.inference.decoder import Decoder
from litmoe.inference.lean_config import lean_config, shapes_of
from litmoe.inference.lean_decoder import LeanDecoder
from litmoe.messages import Say, one_line, silent

if TYPE_CHECKING:
    from litgpt import Tokenizer

    from litmoe.model.gpt import GPT


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on its device, and what belongs to it."""

    folder: Path
    model: "GPT"
    tokenizer: "Tokenizer"
    settings: dict[str, object]
    """The configuration it was trained with; empty for a checkpoint that LitGPT wrote."""

    @property
    def decoder(self) -> Decoder:
        """The model as what generation needs."""
        from litmoe.inference.model_decoder import ModelDecoder

        return ModelDecoder(self.model)


@dataclass(frozen=True)
class LoadedDecoder:
    """What generation needs of a checkpoint."""

    folder: Path
    decoder: Decoder
    tokenizer: "Tokenizer | TextTokenizer"


def load_decoder(
    folder: Path | str | None = None, accelerator: str = "auto", say: Say = silent
) -> LoadedDecoder:
    """Load what generation needs: without LitGPT, which takes seconds to import, where the model is simple enough.

    Arguments and errors as for :func:`load_checkpoint`.
    """
    folder = find_checkpoint(folder, say)
    config = lean_config(read_yaml(folder / checkpoint.MODEL_CONFIG))
    if config is not None:
        weights = checkpoint.load_model(folder)
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        if shapes == shapes_of(config) and len({weight.dtype for weight in weights.values()}) == 1:
            tokenizer = load_text_tokenizer(folder, say)
            refuse_foreign_tokenizer(vocabulary_size(tokenizer.processor), config.padded_vocab_size, folder)
            with torch.inference_mode():
                return LoadedDecoder(
                    folder, LeanDecoder(config, weights, pick_device(accelerator)), tokenizer
                )
    loaded = load_checkpoint(folder, accelerator, say)
    return LoadedDecoder(folder, loaded.decoder, loaded.tokenizer)


def load_checkpoint(
    folder: Path | str | None = None, accelerator: str = "auto", say: Say = silent
) -> LoadedModel:
    """Load a checkpoint of litmoe's, or a folder of LitGPT's.

    Args:
        folder: the checkpoint; None: the newest valid one below ``checkpoints``.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        say: told which damaged checkpoints are skipped.

    Raises:
        CheckpointError: there is none, it is damaged, or its parts do not belong together.
        DataError: it has no tokenizer that can be used.
        ConfigError: its model configuration is wrong, or the device is not there.
    """
    from litmoe.model.config import load_model_config
    from litmoe.model.gpt import GPT

    folder = find_checkpoint(folder, say)
    device = pick_device(accelerator)
    config = load_model_config(folder / checkpoint.MODEL_CONFIG)
    tokenizer = load_tokenizer(folder, say)
    refuse_foreign_tokenizer(vocabulary_size(tokenizer.processor), config.padded_vocab_size, folder)
    with torch.device("meta"):
        model = GPT(config)
    state = checkpoint.load_model(folder)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: the weights are not of its model_config.yaml: {one_line(error)[:200]}"
        ) from error
    model.cos, model.sin = model.rope_cache()  # no checkpoint holds the rotary tables
    settings_file = folder / checkpoint.SETTINGS
    settings = read_yaml(settings_file) if settings_file.is_file() else {}
    return LoadedModel(folder, model.to(device).eval(), tokenizer, settings)


def find_checkpoint(folder: Path | str | None, say: Say = silent) -> Path:
    """The checkpoint asked for, verified; or the newest valid one below ``checkpoints``.

    A run's output folder stands for its newest checkpoint.

    Args:
        folder: a checkpoint, or a run's output folder; None: search below ``checkpoints``.
        say: told which damaged checkpoints are skipped.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if folder is None:
        root = Path("checkpoints")
        found = checkpoint.newest(root, say, below=True) if root.is_dir() else None
        if found is None:
            raise CheckpointError(
                f"{root}: holds no valid checkpoint: train a model first, or name one with --checkpoint"
            )
        return found
    root = Path(folder)
    try:
        if (root / checkpoint.MANIFEST).is_file():
            checkpoint.verify(root)
            return root
        if (root / checkpoint.MODEL).is_file() and (root / checkpoint.MODEL_CONFIG).is_file():
            return root  # LitGPT wrote it: it has no manifest to check
        if not root.is_dir():
            raise CheckpointError(f"{root}: no such checkpoint folder")
    except OSError as error:
        raise checkpoint.unreadable(root, error) from error
    found = checkpoint.newest(root, say)
    if found is None:
        raise CheckpointError(f"{root}: holds no valid checkpoint: name another")
    return found


def refuse_foreign_tokenizer(n_tokens: int, padded_vocab_size: int | None, folder: Path) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Raises:
        CheckpointError: it cannot be the model's.
    """
    if padded_vocab_size is not None and n_tokens > padded_vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {n_tokens:,} tokens, its model an embedding for "
            f"{padded_vocab_size:,} only (padded_vocab_size): it is the tokenizer of another model; copy the "
            "right one there"
        )


def pick_device(accelerator: str) -> torch.device:
    """The device to run a single model on.

    Raises:
        ConfigError: it is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = "cuda" if there["cuda"] else "cpu"
    if not there[accelerator]:
        raise ConfigError(f"accelerator {accelerator}: torch sees no such device here: use --accelerator cpu")
    return torch.device(accelerator)
