"""The memory that a process has taken at most."""

import sys
from pathlib import Path


def peak_memory() -> int:
    """Bytes of this process, since its program was started.

    Linux's ``getrusage`` counts what the parent had when it forked too, so that a small program started by a large
    one seems large.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
