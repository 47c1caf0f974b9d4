"""How fast a run is on this device, and how much memory it takes there, by doing a few of its steps."""

import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.diagnostics.allocations import peak_above_start
from litmoe.diagnostics.step_memory import RandomText
from litmoe.training.device import start_devices
from litmoe.training.run import Run
from litmoe.training.schedule import Horizon
from litmoe.training.setup import assemble, model_and_length
from litmoe.training.step import gradients, update

STEPS = 3


@dataclass(frozen=True)
class Measured:
    """What a few steps have shown."""

    tokens_per_second: float
    """Over all devices, in the training loop's steps, without validation and saving."""
    peak_bytes: int
    """Of a step, as torch's allocator counts it, on one device."""


def measure(config: TrainConfig) -> Measured:
    """Train a few steps on random tokens: one micro-batch and one update each, from which a step is reckoned.

    Raises:
        LitMoEError: the run cannot work here.
    """
    model_config, seq_length = model_and_length(config)
    config, fabric = start_devices(config)
    micro_batch_size, at_once = (
        config.train.micro_batch_size,
        config.train.micro_batch_size * fabric.world_size,
    )
    micro_batches = config.train.global_batch_size // at_once
    train = replace(config.train, global_batch_size=at_once)
    config = replace(config, train=train)
    size = (micro_batch_size, seq_length)
    text = RandomText(size, model_config.vocab_size, fabric.device)
    run = assemble(config, fabric, model_config, seq_length, text, Horizon(1, 0, size[0] * size[1]))
    times: list[tuple[float, float]] = []
    for _ in range(1 + STEPS):  # the first one makes the optimizer's state
        times.append(_step(run))
    if micro_batches > 1:
        run.optimizer.zero_grad(set_to_none=False)
        for parameter in run.gpt.parameters():
            parameter.grad = torch.zeros_like(parameter)
    there = held_bytes(run)
    peak = there + peak_above_start(lambda: _step(run), fabric.device)
    in_gradients, in_update = (statistics.median(column) for column in zip(*times[1:], strict=True))
    step = micro_batches * in_gradients + in_update
    return Measured(micro_batches * train.global_batch_size * seq_length / step, peak)


def _step(run: Run) -> tuple[float, float]:
    """Seconds of the gradients and of the update."""
    started = time.perf_counter()
    figures = gradients(run, run.data())  # waits for the device: it reads the loss
    between = time.perf_counter()
    update(run, figures, run.peak_lr)
    if run.fabric.device.type == "cuda":
        torch.cuda.synchronize(run.fabric.device)
    return between - started, time.perf_counter() - between


def held_bytes(run: Run) -> int:
    """What a run holds on its device between steps."""
    kept: list[Tensor] = [*run.gpt.parameters(), *run.gpt.buffers()]
    kept += [parameter.grad for parameter in run.gpt.parameters() if parameter.grad is not None]
    kept += checkpoint.tensors_in(run.optimizer.state_dict())
    storages = (tensor.untyped_storage() for tensor in kept if tensor.device == run.fabric.device)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
