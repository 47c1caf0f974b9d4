"""How fast a run is on this device, and how much memory it takes there, measured in a few of its steps."""

import statistics
from dataclasses import dataclass

import torch

from litmoe.config import TrainConfig
from litmoe.diagnostics.allocations import peak_above_start
from litmoe.diagnostics.trial import held_bytes, time_step, trial_run
from litmoe.messages import Say, silent

STEPS = 3


@dataclass(frozen=True)
class Measured:
    """The speed and memory of a few steps."""

    tokens_per_second: float
    """Over all devices, in the training loop's steps, without validation and saving."""
    peak_bytes: int
    """Of a step, as torch's allocator counts them, on one device."""


def measure(config: TrainConfig, say: Say = silent) -> Measured:
    """Time one micro-batch and one update on random tokens, and extrapolate to a step.

    Args:
        config: of the run; stays as it is.
        say: told where the run departs from the configuration.

    Raises:
        LitMoEError: the run cannot work here.
    """
    with trial_run(config, say, micro_batches=1) as run:
        at_once = run.config.train.global_batch_size
        micro_batches = config.train.global_batch_size // at_once

        # time, without the first step, which makes the optimizer's state
        times = [time_step(run) for _ in range(1 + STEPS)][1:]
        in_gradients, in_update = (statistics.median(column) for column in zip(*times, strict=True))
        seconds = micro_batches * in_gradients + in_update

        # memory, with the gradients of earlier micro-batches already there
        if micro_batches > 1:
            run.optimizer.zero_grad(set_to_none=False)
            for parameter in run.gpt.parameters():
                parameter.grad = torch.zeros_like(parameter)
        peak = held_bytes(run) + peak_above_start(lambda: time_step(run), run.fabric.device)
        return Measured(micro_batches * at_once * run.seq_length / seconds, peak)
