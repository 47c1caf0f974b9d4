"""Agreements between the processes of a run: one does or sees something, and all of them go on alike.

Every function here is called by all processes, in the same order; with one process they cost nothing.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.rank_zero import rank_zero_only

from litmoe.errors import LitMoEError

Result = TypeVar("Result")


def is_first_process() -> bool:
    """Whether this is the process that writes; known from the environment before any process is started."""
    return getattr(rank_zero_only, "rank", None) in (0, None)


def on_first_process(fabric: Fabric, task: Callable[[], Result]) -> Result:
    """Do a task on the first process only, and return its result on all of them.

    All processes wait for it. Where the task fails they stop together, instead of waiting for one that is gone.

    Args:
        fabric: the run's, launched.
        task: what the first process does; its result must be picklable.

    Raises:
        LitMoEError: the task raised it on the first process; raised everywhere.
    """
    if fabric.world_size == 1:
        return task()
    result, error = None, None
    if fabric.is_global_zero:
        try:
            result = task()
        except LitMoEError as raised:
            error = raised
    result, message = fabric.broadcast((result, str(error) if error else None))
    if message is not None:
        raise error or LitMoEError(message)
    return result


def anywhere(fabric: Fabric, condition: bool) -> bool:
    """Whether a condition holds on any process, so that all of them act on it at the same step."""
    if fabric.world_size == 1:
        return condition
    flag = torch.tensor(float(condition), device=fabric.device)
    return bool(fabric.all_reduce(flag, reduce_op="sum").item())
