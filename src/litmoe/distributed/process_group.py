"""The process group: how the ranks find each other."""

import os
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from litmoe.distributed.world import World


def join_ranks(
    world: World, device_kind: str, wait_limit: float, environ: Mapping[str, str] = os.environ
) -> None:
    """Connect this process with the others; Fabric then takes the group that is there.

    A restarted run gets names of its own in the store where the ranks leave their addresses. torchrun may keep
    that store over a restart, and a rank that reads the address of a dead one waits for it (seen with torch
    2.15: two restarts of three).

    Args:
        world: which process this is.
        device_kind: ``cpu``, ``cuda`` or ``mps``.
        wait_limit: seconds to wait for the others, now and in every collective.
        environ: tells whether torchrun's agent serves the store; else rank 0 does.
    """
    agent_serves = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and world.launcher == "torchrun"
    store = dist.TCPStore(
        world.address,
        world.port,
        world.size,
        is_master=world.first and not agent_serves,
        timeout=timedelta(seconds=wait_limit),
        multi_tenant=True,
    )
    dist.init_process_group(
        "nccl" if device_kind == "cuda" and dist.is_nccl_available() else "gloo",
        store=dist.PrefixStore(f"litmoe/{world.restarts}", store),
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(seconds=wait_limit),
    )


def leave_ranks() -> None:
    """Forget the group, so that this process may train again."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
