"""The memory that torch's allocators hand out while something runs."""

from collections.abc import Callable

import torch


def peak_above_start(task: Callable[[], object], device: torch.device) -> int:
    """Peak bytes in use during a task, above those in use when it starts.

    On a CPU allocations and releases come from torch's profiler, including those inside operators; it slows
    the task down and keeps some hundred bytes per event.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        task()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        task()
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_use = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        most = max(most, in_use)
    return most
