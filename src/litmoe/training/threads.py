"""How many threads torch should have on this machine as it is now: too many are far worse than too few."""

import math
import os
from pathlib import Path


def thread_advice(threads: int) -> str | None:
    """Advice about torch's threads on the CPU, in one line; None if all is well.

    The threads of an operation wait for each other many times per millisecond. A thread that has no core to itself
    keeps all of them waiting: on two cores with one other busy process two threads were 20 times slower than one.

    Args:
        threads: those that torch uses.
    """
    cores = usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return _advice(threads, cores, _quota(), load)


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _advice(threads: int, cores: int, quota: float | None, load: float) -> str | None:
    """
    Args:
        threads: those that torch uses.
        cores: that this process may run on.
        quota: cores' worth of time that a container gives it; None: all it wants.
        load: processes that ran or wanted to in the last minute, this one among them.
    """
    if threads == 1:
        return None
    if quota is not None and threads > math.ceil(quota):
        few = max(1, math.floor(quota))
        return (
            f"torch uses {threads} threads, and this container has the time of {quota:.3g} cores: "
            f"OMP_NUM_THREADS={few} is faster"
        )
    if threads > cores:
        return f"torch uses {threads} threads on {cores} cores: OMP_NUM_THREADS={cores} is faster"
    others = max(0.0, load - 1)
    if threads + others > 1.25 * cores:
        few = max(1, math.floor(cores - others))
        return (
            f"other programs keep about {others:.1f} of {cores} cores busy, and torch uses {threads} threads: "
            f"OMP_NUM_THREADS={few} may be many times faster"
        )
    return None


def _quota(folder: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The time that a container's limit (cgroup v2, v1) gives, in cores; None: there is none, or no Linux."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit, period = (
                (folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError):  # "max" is no number
        return None
