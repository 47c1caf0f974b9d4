"""A run on random tokens, to time a few of its steps: nothing has to be prepared."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from litmoe.config import TrainConfig
from litmoe.data.windows import Batch
from litmoe.messages import Say, silent
from litmoe.optim.state_size import tensors_in
from litmoe.training.device import started_devices
from litmoe.training.run import Run
from litmoe.training.schedule import Horizon
from litmoe.training.setup import assemble, model_and_length
from litmoe.training.step import gradients, update
from litmoe.training.threads import thread_advice


class RandomText:
    """Batches without a text: their content changes neither the time nor the memory of a step."""

    n_windows: int | None = None
    fingerprint: str | None = None
    bytes_per_token: float | None = None
    may_mask = False

    def __init__(self, size: tuple[int, int], vocab_size: int, device: torch.device | None = None) -> None:
        """
        Args:
            size: windows of a micro-batch, and tokens of a window.
            vocab_size: ids are below it.
            device: where batches are made.
        """
        self.size, self.vocab_size, self.device = size, vocab_size, device

    def training(self, start: int, micro_batch_size: int) -> Generator[Batch, None, None]:
        """Micro-batches of random tokens without end."""
        while True:
            inputs_BT, targets_BT = (
                torch.randint(self.vocab_size, self.size, device=self.device) for _ in range(2)
            )
            yield inputs_BT, targets_BT

    def validation(self, micro_batch_size: int) -> Iterator[Batch]:
        """No batches."""
        return iter(())


class StepTime(NamedTuple):
    """Seconds of one step."""

    gradients: float
    """Of all its micro-batches."""
    update: float

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.gradients + self.update


@contextmanager
def trial_run(
    config: TrainConfig, say: Say = silent, micro_batches: int | None = None
) -> Generator[Run, None, None]:
    """A run on random tokens, on all devices of the configuration while it is entered.

    Args:
        config: stays as it is.
        say: told where the run departs from the configuration, and if it has more threads than free cores.
        micro_batches: of a step on each device; None: as the configuration has it.

    Raises:
        LitMoEError: the run cannot work here.
    """
    model_config, seq_length = model_and_length(config)
    with started_devices(config, say) as (config, fabric):
        crowded = thread_advice(torch.get_num_threads()) if fabric.device.type == "cpu" else None
        if crowded is not None and fabric.is_global_zero:
            say(crowded)
        train = config.train
        if micro_batches is not None:
            train = replace(
                train, global_batch_size=micro_batches * train.micro_batch_size * fabric.world_size
            )
            config = replace(config, train=train)
        text = RandomText((train.micro_batch_size, seq_length), model_config.vocab_size, fabric.device)
        extent = Horizon(1, 0, train.global_batch_size * seq_length)
        yield assemble(config, fabric, model_config, seq_length, text, extent)


def time_step(run: Run) -> StepTime:
    """Do one step of a run, and time it; the device has finished at the end."""
    started = time.perf_counter()
    figures = gradients(run, run.data())  # waits for the device: it reads the loss
    between = time.perf_counter()
    update(run, figures, run.peak_lr)
    if run.fabric.device.type == "cuda":
        torch.cuda.synchronize(run.fabric.device)
    return StepTime(between - started, time.perf_counter() - between)


def held_bytes(run: Run) -> int:
    """Bytes that a run holds on its device between steps."""
    kept: list[Tensor] = [*run.gpt.parameters(), *run.gpt.buffers()]
    kept += [parameter.grad for parameter in run.gpt.parameters() if parameter.grad is not None]
    kept += tensors_in(run.optimizer.state_dict())
    storages = (tensor.untyped_storage() for tensor in kept if tensor.device == run.fabric.device)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
