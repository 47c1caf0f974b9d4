"""``litmoe wandb-dataset``: a prepared data folder in, an Artifact of Weights & Biases out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litmoe.cli.command import Command
from litmoe.cli.console import Console
from litmoe.config.load import parse
from litmoe.config.values import Folder, Name


@dataclass
class WandbDatasetOptions:
    """What to upload, and under which name."""

    data_dir: Folder = Path("data/custom_text")
    """The prepared data folder."""
    tokenizer_dir: Folder = Path("data/tokenizer")
    """The tokenizer that it was prepared with."""
    wandb_artifact: Name | None = None
    """The Artifact's name; null: ``dataset-`` and the data folder's name."""
    alias: list[Name] = field(default_factory=list)
    """Aliases besides ``latest``."""


def wandb_dataset_command(args: Sequence[str], console: Console) -> None:
    """Upload a prepared data set to Weights & Biases, without tokenizing again."""
    options = parse(WandbDatasetOptions, args)
    from litmoe.wandb.datasets import upload_dataset

    name = options.wandb_artifact or f"dataset-{options.data_dir.resolve().name}"
    upload_dataset(options.data_dir, options.tokenizer_dir, name, options.alias, say=console.say)


WANDB_DATASET = Command(wandb_dataset_command, (WandbDatasetOptions,), "[--data-dir DIR] [options]")
