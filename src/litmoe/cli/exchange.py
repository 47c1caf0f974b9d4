"""``litmoe export``, ``litmoe import`` and ``litmoe wandb-dataset``: their words, and the functions they call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litmoe.config.files import parse
from litmoe.errors import LitMoEError
from litmoe.messages import nearest

FORMATS = ("huggingface", "gguf")


@dataclass
class ExportConfig:
    """Write a checkpoint in another program's format: litmoe export CHECKPOINT --to FORMAT PLACE."""

    checkpoint: Path | None = None
    """The checkpoint folder; null: the newest valid one below ``checkpoints``."""
    to: list[str] = field(default_factory=list)
    """``huggingface FOLDER`` for Transformers, or ``gguf FILE`` for llama.cpp."""


@dataclass
class ImportConfig:
    """Make a checkpoint of a Mixtral or of LitGPT's: litmoe import SOURCE [--out-dir FOLDER]."""

    source: str | None = None
    """A folder, or a hub id such as ``owner/name``."""
    out_dir: Path | None = None
    """The checkpoint folder to write; null: ``checkpoints/`` and the source's name."""


@dataclass
class WandbDatasetConfig:
    """Upload a prepared data set to Weights & Biases without tokenizing again."""

    data_dir: Path = Path("data/custom_text")
    """The prepared data folder."""
    tokenizer_dir: Path = Path("data/tokenizer")
    """The tokenizer that it was prepared with."""
    wandb_artifact: str | None = None
    """The Artifact's name; null: ``dataset-`` and the data folder's name."""
    alias: list[str] = field(default_factory=list)
    """Aliases besides ``latest``."""


def export_command(words: Sequence[str], program: str) -> None:
    """Write a checkpoint for Transformers or llama.cpp."""
    config = parse(ExportConfig, _named_first(words, "checkpoint"), {}, program)
    if len(config.to) != 2:
        raise LitMoEError("say what to write and where: --to huggingface FOLDER or --to gguf FILE")
    name, place = config.to[0], Path(config.to[1])
    if name not in FORMATS:
        raise LitMoEError(f"--to {name}: no such format{nearest(name, FORMATS)}")
    from litmoe.inference.loading import find_checkpoint

    folder = find_checkpoint(config.checkpoint, print)
    if name == "huggingface":
        from litmoe.interop.huggingface import export_huggingface

        export_huggingface(folder, place)
    else:
        from litmoe.interop.gguf import export_gguf

        export_gguf(folder, place)


def import_command(words: Sequence[str], program: str) -> None:
    """Make a checkpoint of a Mixtral from Hugging Face, or of one that LitGPT wrote."""
    config = parse(ImportConfig, _named_first(words, "source"), {}, program)
    if not config.source:
        raise LitMoEError("name a folder, or a hub id such as owner/name")
    from litmoe.interop.huggingface import import_huggingface
    from litmoe.interop.litgpt import import_litgpt, is_litgpt

    source = Path(config.source)
    directory = config.out_dir or Path("checkpoints", source.name)
    if is_litgpt(source):
        import_litgpt(source, directory)
    else:
        import_huggingface(config.source, directory)


def wandb_dataset_command(words: Sequence[str], program: str) -> None:
    """Upload a prepared data set to Weights & Biases."""
    config = parse(WandbDatasetConfig, words, {}, program)
    from litmoe.wandb.datasets import upload_dataset

    name = config.wandb_artifact or f"dataset-{config.data_dir.resolve().name}"
    upload_dataset(config.data_dir, config.tokenizer_dir, name, config.alias)


def _named_first(words: Sequence[str], option: str) -> list[str]:
    """The words with a leading one that is no option turned into one."""
    if words and not words[0].startswith("-"):
        return [f"--{option}={words[0]}", *words[1:]]
    return list(words)
