"""``litmoe inspect``: which expert handles what, as a page to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from litmoe.cli.command import Command, names_first
from litmoe.cli.console import Console
from litmoe.config.load import parse
from litmoe.config.values import File, Folder
from litmoe.errors import ConfigError


@dataclass
class InspectOptions:
    """Which checkpoints, which text, and how much to measure."""

    checkpoints: list[Folder] = field(default_factory=list)
    """Checkpoints of one run in the order of training; the last one is looked at in full."""
    text: Path | None = None
    """A file or folder of text, in any form that ``prepare`` reads; records may say where they are from in a
    field ``domain`` or ``source``. Null: the run's validation text."""
    prompt: str | None = None
    """A text to show with its experts; the other figures are of the run's validation text, where that is here."""
    out: File | None = None
    """The page; null: ``routing.html`` beside the last checkpoint."""
    json: File | None = None
    """Also write the figures to this file."""
    max_tokens: int = 16_384
    """Tokens of the text that are looked at."""
    shuffles: int = 12
    """Runs with shuffled weights that tell structure from chance; 0: none."""
    knockout_windows: int = 16
    """Windows that the loss without each expert is measured on; 0: it is not."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Which kind of device."""


def inspect_command(args: Sequence[str], console: Console) -> None:
    """Write which expert handles what as one page to look at."""
    options = parse(InspectOptions, names_first(args, "checkpoints"))
    if not options.checkpoints:
        raise ConfigError("name a checkpoint, such as checkpoints/tiny/final")
    for name, value, least in (
        ("max-tokens", options.max_tokens, 1),
        ("shuffles", options.shuffles, 0),
        ("knockout-windows", options.knockout_windows, 0),
    ):
        if value < least:
            raise ConfigError(f"--{name} must be {least} or more, got {value}")
    from litmoe.report.routing.explore import Effort, explore
    from litmoe.report.routing.page import PAGE, write_routing

    effort = Effort(options.max_tokens, options.shuffles, options.knockout_windows)
    figures = explore(
        options.checkpoints, options.text, options.prompt, effort, options.accelerator, console.say
    )
    page = options.out or Path(figures.checkpoint).parent / PAGE
    write_routing(figures, page, options.json)
    for sentence in figures.verdict:
        console.say(f"- {sentence}")
    console.say(f"wrote {page}")


INSPECT = Command(
    inspect_command,
    (InspectOptions,),
    "CHECKPOINT [CHECKPOINT ...] [--text PATH | --prompt TEXT] [options]",
    essentials=("checkpoints", "text", "prompt", "out", "json", "accelerator"),
)
