"""The devices of a run, and the settings that depend on them: precision and compilation."""

import copy
import inspect
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from lightning.fabric.utilities.rank_zero import rank_zero_module
from torch.nn.parallel import DistributedDataParallel

from litmoe.config import TrainConfig
from litmoe.config.checks import check_batch
from litmoe.distributed.environment import WorldEnvironment
from litmoe.distributed.process_group import join_ranks, leave_ranks
from litmoe.distributed.session import Session
from litmoe.distributed.world import World, launched_world, settle_world
from litmoe.errors import ConfigError
from litmoe.messages import Say, one_line, silent


def world_of(config: TrainConfig) -> World:
    """The processes of a run, by whoever has started them, else by the configuration and this machine.

    Raises:
        ConfigError: a device that is not here, a launcher that contradicts the configuration, or a batch that does
            not divide over the devices.
    """
    kind = _device_kind(config)
    available = torch.cuda.device_count() if kind == "cuda" else 1
    if isinstance(config.devices, int) and launched_world(os.environ) is None:
        # what the numbers alone tell, before whether more processes can be started
        check_batch(config.train, config.devices * config.num_nodes)
    world = settle_world(
        config.devices, config.num_nodes, os.environ, available, config.train.global_batch_size
    )
    if kind == "cuda" and world.local_size > available:
        raise ConfigError(f"devices {world.local_size}: torch sees only {available} CUDA device(s) here")
    check_batch(config.train, world.size)
    return world


@contextmanager
def started_devices(config: TrainConfig, say: Say = silent) -> Iterator[tuple[TrainConfig, Fabric]]:
    """All processes that a configuration means, while the block runs; yields what :func:`start_devices` returns.

    ``say`` is called in the first process only.

    Raises:
        LitMoEError: as :func:`world_of` and :func:`start_devices`.
    """
    with Session(world_of(config), config.faults.rank_timeout) as session:
        yield start_devices(config, say if session.world.first else silent, session)


def start_devices(
    config: TrainConfig, say: Say = silent, session: Session | None = None
) -> tuple[TrainConfig, Fabric]:
    """Settle a configuration for the devices of this machine, and launch Fabric on them.

    Args:
        config: as a person gave it; stays as it is.
        session: the processes, entered; None: this one alone.
        say: told where the run departs from the configuration.

    Returns:
        A copy of the configuration with its precision and ``compile`` settled, and Fabric.

    Raises:
        LitMoEError: a device that is not here, or a precision that it cannot compute in.
    """
    kind = _device_kind(config)
    config = settle_precision(config, kind, say)
    session = session or Session(World(), config.faults.rank_timeout)
    fabric = _fabric(config, session.world)
    if session.world.size > 1:
        join_ranks(session.world, kind, config.faults.rank_timeout)
        session.at_end(leave_ranks)
    with _without_banner():
        fabric.launch()
    session.connect(fabric.broadcast)
    return settle_compile(config, fabric.device, say), fabric


def settle_precision(config: TrainConfig, device_kind: str, say: Say = silent) -> TrainConfig:
    """Choose the precision where the configuration leaves it open, and another where the device lacks it.

    Args:
        config: stays as it is.
        device_kind: ``cpu``, ``cuda`` or ``mps``.
        say: told where the run departs from the configuration.

    Returns:
        A deep copy with the precision set.

    Raises:
        ConfigError: a precision that the device cannot compute in.
    """
    config = copy.deepcopy(config)
    on_cuda = device_kind == "cuda"
    if config.precision is None:
        return replace(
            config, precision="bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported() else "32-true"
        )
    if config.precision == "16-mixed" and not on_cuda:
        raise ConfigError("precision 16-mixed needs a CUDA device: use bf16-mixed or 32-true")
    if device_kind == "cpu" and config.precision in ("bf16-mixed", "bf16-true") and not _cpu_has_bf16():
        # Without instructions for it torch multiplies bf16 matrices element by element: the tiny preset takes ten
        # times as long, MoE-200M took minutes for a micro-batch of 64 tokens.
        lacks = f"precision {config.precision}: this CPU has no instructions for bf16"
        if config.precision == "bf16-mixed":
            say(f"{lacks}; 32-true is used instead, which is faster")
            return replace(config, precision="32-true")
        say(f"{lacks}, and is many times slower with it than with 32-true, which takes twice the memory")
    return config


def settle_compile(config: TrainConfig, device: torch.device, say: Say = silent) -> TrainConfig:
    """The same configuration, or a copy with ``compile`` off where nothing can be compiled, which is said."""
    if config.compile and (problem := compile_problem(device)) is not None:
        say(f"compile: torch.compile does not work here, and the run goes on without it ({problem})")
        return replace(config, compile=False)
    return config


def compile_problem(device: torch.device) -> str | None:
    """Why ``torch.compile`` does not work for a device, in one line; None where it does.

    It needs a C++ compiler for a CPU, and Triton for a GPU. Takes seconds: it is tried.
    """

    def next_number(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    try:
        torch.compile(next_number, fullgraph=True)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler, or the lack of one, raises
        return one_line(error)[:200]
    return None


def _device_kind(config: TrainConfig) -> str:
    """``cpu``, ``cuda`` or ``mps``, by the configured accelerator and what is here."""
    accelerator = config.accelerator
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError("accelerator cuda: torch sees no CUDA device here: use --accelerator cpu")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("accelerator mps: torch sees no Apple GPU here: use --accelerator cpu")
    if torch.cuda.is_available() and accelerator in ("auto", "cuda"):
        return "cuda"
    return "cpu" if accelerator in ("auto", "cpu") else "mps"


def _fabric(config: TrainConfig, world: World) -> Fabric:
    """Fabric for the settled world, not yet launched."""
    strategy: DDPStrategy | str = "auto"
    if world.size > 1:
        strategy = DDPStrategy(
            cluster_environment=WorldEnvironment(world),
            timeout=timedelta(seconds=config.faults.rank_timeout),
            **_without_buffers(),
        )
    return Fabric(
        accelerator=config.accelerator,
        devices=world.local_size,
        num_nodes=world.nodes,
        strategy=strategy,
        precision=config.precision,
    )


def _without_buffers() -> dict[str, bool]:
    """DDP's option not to send buffers in every forward.

    The rotary tables are the same everywhere; and a rank without a validation window, which does no forward, would
    be waited for.
    """
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    name = (
        "forward_sync_buffers" if "forward_sync_buffers" in parameters else "broadcast_buffers"
    )  # torch < 2.15
    return {name: False}


@contextmanager
def _without_banner() -> Iterator[None]:
    """Keep Lightning from announcing its processes: the start lines name the devices."""
    # the second is whichever of its packages was imported last
    loggers = [logging.getLogger("lightning.fabric.utilities.distributed"), rank_zero_module.log]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cpu_has_bf16() -> bool:
    """Whether oneDNN, which multiplies torch's matrices on a CPU, has bf16 kernels here."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
