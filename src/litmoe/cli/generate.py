"""``litmoe generate``: a prompt in, text out as it is written."""

from collections.abc import Sequence

from litmoe.cli.command import Command
from litmoe.cli.console import Console
from litmoe.config import GenerateConfig
from litmoe.config.load import parse


def generate_command(args: Sequence[str], console: Console) -> None:
    """Write text with a trained model."""
    config = parse(GenerateConfig, args)
    from litmoe.inference.generate import generate

    generate(config, write=console.write_or_end, say=console.warn)


GENERATE = Command(generate_command, (GenerateConfig,), "[--prompt TEXT] [options]", result_is_printed=True)
