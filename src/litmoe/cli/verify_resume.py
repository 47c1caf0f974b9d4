"""``litmoe verify-resume``: the proof that a killed and resumed run equals an uninterrupted one."""

from collections.abc import Sequence
from dataclasses import dataclass

from litmoe.cli.command import Command, run_options
from litmoe.cli.console import Console
from litmoe.config import TrainConfig
from litmoe.config.load import RunFiles


@dataclass
class VerifyResumeOptions:
    """Options of the command alone."""

    steps: int = 30
    """Steps to train."""
    kills: int = 5
    """How often to kill."""
    kill_seed: int = 0
    """Seed of the instants."""


def verify_resume_command(args: Sequence[str], console: Console) -> int:
    """Prove for a configuration that a killed and resumed run equals an uninterrupted one."""
    own, config = run_options(args, VerifyResumeOptions)
    from litmoe.diagnostics.verify_resume import verify_resume

    result = verify_resume(config, own.steps, own.kills, own.kill_seed, say=console.say)
    return 0 if result.difference is None else 1


VERIFY_RESUME = Command(
    verify_resume_command,
    (VerifyResumeOptions, RunFiles, TrainConfig),
    "[--preset NAME] [--config FILE] [options]",
    essentials=("steps", "kills", "kill-seed", "preset", "config", "model-config", "data-dir", "out-dir"),
    note="The other options are those of training. Nothing is written to the output folder: the runs live in a "
    "temporary folder beside it, with two checkpoints each, and are removed. Exit code 0: identical to the bit; "
    "1: different, and how.",
    result_is_printed=True,
)
