"""What one process decides, all follow: tasks whose outcome every rank shares.

Every function here is called by all ranks, and each ends the same way on all of them: with a result, or with the
first rank's error. None stands in a loop whose length differs between ranks. With one process they cost nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist
from lightning.fabric import Fabric

from litmoe.errors import ConfigError, LitMoEError

Result = TypeVar("Result")


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


def together(fabric: Fabric, task: Callable[[], Result]) -> Result:
    """Each rank's own result of a task that all ranks do; where any fails, all raise the first one's message.

    Raises:
        LitMoEError: the task did, on some rank; everywhere, and with the rank's number where only some failed.
    """
    if fabric.world_size == 1:
        return task()
    result, error = None, None
    try:
        result = task()
    except LitMoEError as raised:
        error = raised
    messages = gather(fabric, str(error) if error else None)
    failed = [rank for rank, message in enumerate(messages) if message is not None]
    if failed:
        where = "" if len(failed) == len(messages) else f"rank {failed[0]}: "
        raise LitMoEError(f"{where}{messages[failed[0]]}") from error
    return result  # type: ignore[return-value]  # the task's, which did not fail


def first_before_others(fabric: Fabric, task: Callable[[], Result]) -> Result:
    """A task that all ranks do, rank 0 before the others, which then find what it made.

    Raises:
        LitMoEError: the task did, on some rank; everywhere.
    """
    if fabric.world_size == 1:
        return task()
    found: list[Result] = []
    on_first_process(fabric, lambda: found.append(task()))
    return together(fabric, lambda: found[0] if found else task())


def anywhere(fabric: Fabric, condition: bool) -> bool:
    """Whether a condition holds on any rank, so that all of them act on it at the same step."""
    return any(gather(fabric, condition))


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """What every rank has, by rank; small objects only."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(values, value)
    return values


def refuse_differences(fabric: Fabric, facts: Mapping[str, Any]) -> None:
    """Refuse a run whose ranks do not agree in what must be the same: data, tokenizer, settings, code.

    Raises:
        ConfigError: names the first fact that differs, and the rank; everywhere.
    """
    all_facts = gather(fabric, dict(facts))
    for rank, other in enumerate(all_facts):
        for name, value in all_facts[0].items():
            if other.get(name) != value:
                raise ConfigError(
                    f"rank {rank} differs from rank 0 in {name} ({_short(other.get(name))} and {_short(value)}): "
                    "all machines must have the same code, settings, text and tokenizer"
                )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
