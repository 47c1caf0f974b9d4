"""``litmoe train``: a configuration in, a trained model in a folder of checkpoints out."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from litmoe.cli.command import Command, run_options
from litmoe.cli.console import Console
from litmoe.config import TrainConfig, as_plain
from litmoe.config.checks import check
from litmoe.config.dialect import to_yaml
from litmoe.config.load import RunFiles
from litmoe.messages import one_line


@dataclass
class TrainOptions:
    """Options of the command alone."""

    print_config: bool = False
    """Print the configuration that results, and stop."""


def train_command(args: Sequence[str], console: Console) -> int:
    """Train a Mixture-of-Experts language model, or continue a run."""
    own, config = run_options(args, TrainOptions)
    check(config)
    if own.print_config:
        from litmoe.training.setup import check_parts

        check_parts(config)  # what training would refuse is not printed either
        console.write(to_yaml(as_plain(config), ascii_only=True))
        return console.exit_code(result_is_printed=True)
    from litmoe.training.loop import train

    started = time.time()
    try:
        train(config, say=console.say_or_fail)
    finally:  # after an interruption and a fault too: then there is most to look at
        if config.report:
            _write_report(config, started, console)
    return 0


def _write_report(config: TrainConfig, started: float, console: Console) -> None:
    """Write the run's page, where this call has trained; what goes wrong is a line and no more."""
    from litmoe.distributed.world import is_first
    from litmoe.report.run_page import write_report
    from litmoe.training.recording.metrics_file import METRICS_FILE

    metrics = config.out_dir / METRICS_FILE
    try:
        if is_first(os.environ) and metrics.is_file() and metrics.stat().st_mtime >= started - 1:
            console.say(f"report           {write_report([config.out_dir])}")
    except Exception as error:  # nothing that is only shown may hide how the run ended
        console.warn(f"no report was written: {one_line(error)}")


TRAIN = Command(
    train_command,
    (TrainOptions, RunFiles, TrainConfig),
    "[--preset NAME] [--config FILE] [options]",
    essentials=(
        "preset",
        "config",
        "model-config",
        "data-dir",
        "out-dir",
        "resume",
        "max-tokens",
        "global-batch-size",
        "micro-batch-size",
        "max-seq-length",
        "optimizer",
        "optimizer.init-args",
        "precision",
        "wandb-dataset",
        "logger-name",
        "progress",
        "print-config",
    ),
    note="Later ones override earlier ones: preset, config, options.",
)
