"""What LitGPT wrote, as a checkpoint of litmoe: plain weights with a manifest.

litmoe also reads LitGPT's folders as they are.
"""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from litgpt import Config
from torch import Tensor

from litmoe import checkpoint
from litmoe.config.files import read_yaml
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import CheckpointError, LitMoEError
from litmoe.files import reason_of
from litmoe.messages import Say, one_line, silent
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT

IMPORTED = "imported_from"
"""Key of hyperparameters.yaml that says where an imported checkpoint came from."""


def is_litgpt(folder: Path) -> bool:
    """Whether a folder holds a LitGPT checkpoint, litmoe's included."""
    return (folder / checkpoint.MODEL).is_file() and (folder / checkpoint.MODEL_CONFIG).is_file()


def import_litgpt(source: Path, directory: Path, say: Say = silent) -> None:
    """Write LitGPT's checkpoint as one of litmoe: plain weights, verified by a manifest.

    Args:
        source: the folder of ``litgpt pretrain``, ``litgpt convert_to_litgpt`` and the like.
        directory: the checkpoint folder to write; an earlier import there is replaced.
        say: gets one line per event.

    Raises:
        LitMoEError: the folder is damaged, its weights are not of its configuration, it is no model that litmoe
            has, or ``directory`` holds anything but an earlier import.
    """
    refuse_other_than_import(directory)
    config = load_model_config(source / checkpoint.MODEL_CONFIG)
    weights = checkpoint.load_model(source)
    with torch.device("meta"):
        model = GPT(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = one_line(error)[:200]
        raise CheckpointError(f"{source}: the weights are not of its model_config.yaml: {reason}") from error
    save_import(directory, str(source), source, config, weights, say)


def save_import(
    directory: Path, name: str, folder: Path, config: Config, weights: dict[str, Tensor], say: Say
) -> None:
    """Write a checkpoint of step 0 from weights and the tokenizer of ``folder``, if it has one.

    Raises:
        LitMoEError: the tokenizer cannot be read, or the checkpoint cannot be written.
    """
    has_tokenizer = (folder / "tokenizer.json").is_file()
    if has_tokenizer:
        load_tokenizer(folder)
    else:
        say(f"{folder} has no tokenizer.json: good to start training from, but not to generate text with")
    contents = checkpoint.Contents(
        step=0,
        model=weights,
        trainer=None,
        model_config=asdict(config),
        settings={IMPORTED: name},
        tokenizer_dir=folder if has_tokenizer else None,
        hf_config=checkpoint.hf_config(config, weights),
    )
    for moved in checkpoint.save(directory, contents):
        say(f"{moved}: files that lay in {directory} and were not the import's")
    count = sum(tensor.numel() for tensor in weights.values())
    say(f"imported {name} to {directory}: {count:,} weights, {next(iter(weights.values())).dtype}")


def refuse_other_than_import(directory: Path) -> None:
    """Raise unless ``directory`` is missing, empty, or an earlier import.

    Raises:
        LitMoEError: it is a file, a folder with something else in it, or cannot be read.
    """
    try:
        is_folder, exists = directory.is_dir(), directory.exists()
        is_empty = not exists or (is_folder and not any(directory.iterdir()))
    except OSError as error:
        raise LitMoEError(
            f"{directory}: cannot be read: {reason_of(error)}: choose another folder"
        ) from error
    if exists and not is_folder:
        raise LitMoEError(f"{directory} is a file: choose another folder")
    if is_empty:
        return
    with suppress(LitMoEError):
        if IMPORTED in read_yaml(directory / checkpoint.SETTINGS):
            return
    raise LitMoEError(f"{directory} holds files that are not an import of litmoe: choose another folder")
