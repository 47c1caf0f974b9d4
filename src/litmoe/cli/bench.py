"""``litmoe bench``: how fast a configuration trains and writes on this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from litmoe.cli.command import Command, run_options
from litmoe.cli.console import Console
from litmoe.config import TrainConfig
from litmoe.config.load import RunFiles
from litmoe.errors import ConfigError


@dataclass
class BenchOptions:
    """Options of the command alone."""

    steps: int = 10
    """Steps to measure."""


def bench_command(args: Sequence[str], console: Console) -> None:
    """Measure training and generation on this machine, as a table to paste."""
    own, config = run_options(args, BenchOptions, default_preset="tiny")
    if own.steps < 1:
        raise ConfigError(f"--steps must be greater than 0, got {own.steps}")
    from litmoe.diagnostics.bench import bench, table
    from litmoe.distributed.world import is_first

    figures = bench(config, own.steps, console.warn)
    if is_first(os.environ):
        console.say(table(figures))


BENCH = Command(
    bench_command,
    (BenchOptions, RunFiles, TrainConfig),
    "[--preset NAME] [--config FILE] [options]",
    essentials=(
        "steps",
        "preset",
        "config",
        "model-config",
        "micro-batch-size",
        "max-seq-length",
        "precision",
        "optimizer",
        "compile",
        "devices",
    ),
    note="Text is random tokens. Without --preset and --config it is the preset tiny; the options are those of "
    "training.",
    result_is_printed=True,
)
