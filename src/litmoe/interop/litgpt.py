"""What LitGPT wrote, as a checkpoint of ours: plain weights with a manifest.

Our loaders read LitGPT's folders as they are, too.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from litgpt import Config
from torch import Tensor

from litmoe import checkpoint
from litmoe.config.files import read_yaml
from litmoe.data.tokenizer import load_tokenizer
from litmoe.errors import LitMoEError
from litmoe.messages import one_line
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT

IMPORTED = "imported_from"
"""Key of hyperparameters.yaml that says where an imported checkpoint came from."""


def is_litgpt(folder: Path) -> bool:
    """Whether a folder holds a LitGPT checkpoint, ours included."""
    return (folder / checkpoint.MODEL).is_file() and (folder / checkpoint.MODEL_CONFIG).is_file()


def import_litgpt(source: Path, directory: Path, say: Callable[[str], None] = print) -> None:
    """Write LitGPT's checkpoint as one of ours: plain weights, verified by a manifest.

    Args:
        source: the folder of ``litgpt pretrain``, ``litgpt convert_to_litgpt`` and the like.
        directory: the checkpoint folder to write; an earlier import there is replaced.
        say: gets one line per event.

    Raises:
        LitMoEError: the folder is damaged, its weights are not of its configuration, it is no model that ours can
            be, or ``directory`` holds anything but an earlier import.
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
        raise LitMoEError(f"{source}: the weights are not of its model_config.yaml: {reason}") from error
    save_import(directory, str(source), source, config, weights, say)


def save_import(
    directory: Path,
    name: str,
    folder: Path,
    config: Config,
    weights: dict[str, Tensor],
    say: Callable[[str], None],
) -> None:
    """Write a checkpoint of step 0 from weights and the tokenizer of ``folder``, where there is one.

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
    checkpoint.save(directory, contents)
    count = sum(tensor.numel() for tensor in weights.values())
    say(f"imported {name} to {directory}: {count:,} weights, {next(iter(weights.values())).dtype}")


def refuse_other_than_import(directory: Path) -> None:
    """Raise unless ``directory`` is missing, empty, or an earlier import.

    Raises:
        LitMoEError: it is a file, or a folder with something else in it.
    """
    if directory.exists() and not directory.is_dir():
        raise LitMoEError(f"{directory} is a file: choose another folder")
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    try:
        if IMPORTED in read_yaml(directory / checkpoint.SETTINGS):
            return
    except LitMoEError:
        pass
    raise LitMoEError(f"{directory} holds files that are not an import of litmoe: choose another folder")
