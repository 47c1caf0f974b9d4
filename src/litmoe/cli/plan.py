"""``litmoe plan``: what a run will need, before anything runs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from litmoe.cli.command import Command, run_options
from litmoe.cli.console import Console
from litmoe.config import TrainConfig
from litmoe.config.checks import check
from litmoe.config.load import RunFiles
from litmoe.config.values import File, Name, Shown
from litmoe.messages import silent


@dataclass
class PlanOptions:
    """Options of the command alone."""

    vram: Annotated[str, Shown("SIZE")] | None = None
    """Plan for a GPU with this memory, such as 6GB; null: for the device here."""
    device_name: Name | None = None
    """Plan for a card by its name, such as "RTX 3060"."""
    fit: bool | File = False
    """Write the configuration that fits; without a name to ``fit.yaml``."""
    measure: bool = False
    """Train a few steps on this device: tokens per second, and peak memory."""


def plan_command(args: Sequence[str], console: Console) -> None:
    """Estimate what a run will need in memory, disk and time, and what makes it fit."""
    own, config = run_options(args, PlanOptions)
    check(config)
    from litmoe.cli.show_plan import show, show_fit, show_measured, write
    from litmoe.diagnostics.devices import other_device, this_device
    from litmoe.diagnostics.measure import measure
    from litmoe.diagnostics.plan import make_plan
    from litmoe.distributed.world import is_first

    if own.vram is not None or own.device_name is not None:
        device = other_device(own.vram, own.device_name)
    else:
        device = this_device(config.accelerator)
    say = console.say if is_first(os.environ) else silent  # one of several that measure
    plan = make_plan(config, device, say=say)
    show(plan, say)
    file = Path("fit.yaml") if own.fit is True else own.fit or None
    if plan.fits is False:
        plan = show_fit(plan, file, say)
    elif file is not None:
        write(plan.config, file, say)
    if own.measure:
        show_measured(plan, measure(plan.config, say), say)


PLAN = Command(
    plan_command,
    (PlanOptions, RunFiles, TrainConfig),
    "[--preset NAME] [--config FILE] [options]",
    essentials=(
        "vram",
        "device-name",
        "fit",
        "measure",
        "preset",
        "config",
        "model-config",
        "micro-batch-size",
        "max-seq-length",
        "precision",
        "optimizer",
        "memory.recompute",
        "devices",
    ),
    note="The other options are those of training.",
    result_is_printed=True,
)
