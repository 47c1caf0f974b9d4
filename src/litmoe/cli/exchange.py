"""``litmoe export`` and ``litmoe import``: checkpoints in the formats of other programs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litmoe.cli.command import Command, named_first
from litmoe.cli.console import Console
from litmoe.config.load import parse
from litmoe.config.values import Folder, PathOrName
from litmoe.errors import ConfigError
from litmoe.messages import nearest

FORMATS = ("huggingface", "gguf")


@dataclass
class ExportOptions:
    """Which checkpoint, and as what."""

    checkpoint: Folder | None = None
    """The checkpoint folder; null: the newest valid one below ``checkpoints``."""
    to: list[PathOrName] = field(default_factory=list)
    """``huggingface DIR`` for Transformers, or ``gguf FILE`` for llama.cpp."""


@dataclass
class ImportOptions:
    """What to import, and where to."""

    source: PathOrName | None = None
    """A folder, or a hub id such as ``owner/name``."""
    out_dir: Folder | None = None
    """The checkpoint folder to write; null: ``checkpoints/`` and the source's name."""


def export_command(args: Sequence[str], console: Console) -> None:
    """Write a checkpoint for Transformers or llama.cpp."""
    options = parse(ExportOptions, named_first(args, "checkpoint"))
    if len(options.to) != 2:
        raise ConfigError("say what to write and where: --to huggingface DIR or --to gguf FILE")
    name, place = options.to[0], Path(options.to[1])
    if name not in FORMATS:
        raise ConfigError(f"--to {name}: no such format{nearest(name, FORMATS)}")
    from litmoe.inference.loading import find_checkpoint

    folder = find_checkpoint(options.checkpoint, console.say)
    if name == "huggingface":
        from litmoe.interop.huggingface import export_huggingface

        export_huggingface(folder, place, say=console.say)
    else:
        from litmoe.interop.gguf import export_gguf

        export_gguf(folder, place, say=console.say)


def import_command(args: Sequence[str], console: Console) -> None:
    """Make a checkpoint of a Mixtral from Hugging Face, or of one that LitGPT wrote."""
    options = parse(ImportOptions, named_first(args, "source"))
    if not options.source:
        raise ConfigError("name a folder, or a hub id such as owner/name")
    from litmoe.interop.huggingface import import_huggingface
    from litmoe.interop.litgpt import import_litgpt, is_litgpt

    source = Path(options.source)
    directory = options.out_dir or Path("checkpoints", source.name)
    if is_litgpt(source):
        import_litgpt(source, directory, say=console.say)
    else:
        import_huggingface(options.source, directory, say=console.say)


EXPORT = Command(export_command, (ExportOptions,), "[CHECKPOINT] --to huggingface DIR | --to gguf FILE")
IMPORT = Command(import_command, (ImportOptions,), "SOURCE [--out-dir DIR]")
