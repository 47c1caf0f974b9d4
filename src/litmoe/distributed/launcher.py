"""The other processes of one machine, where no launcher has started them.

This process is the machine's first; it starts the same command once more for every other device, with the
variables that torchrun would set. A child whose parent dies ends by itself (:func:`end_with_parent`), so none
is left behind.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from litmoe.distributed.world import World, environment_of

STOP_SECONDS = 3.0
"""How long a process may take to end after it was asked to, before it is killed."""
_POLL_SECONDS = 0.5


class Children:
    """The processes that this one has started."""

    def __init__(self, world: World) -> None:
        """Start a process for every device of this machine but the first; ``self.world`` has the port chosen."""
        self.world = world if world.port else replace(world, port=free_port())
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        first = world.node * world.local_size
        try:
            for local_rank in range(1, world.local_size):
                environ = os.environ | environment_of(self.world, local_rank)
                process = subprocess.Popen(own_command(), env=environ, stdin=subprocess.DEVNULL)
                self._processes[first + local_rank] = process
        except OSError:
            self.stop(0)
            raise

    def ended(self) -> dict[int, int]:
        """Ranks whose process has ended, and its exit code (minus the signal's number where one killed it)."""
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        return {rank: code for rank, code in codes.items() if code is not None}

    def stop(self, seconds: float) -> None:
        """Wait for all to end by themselves, for at most ``seconds``; then ask them to, and at last kill them."""
        for action, limit in ((None, seconds), ("terminate", STOP_SECONDS), ("kill", STOP_SECONDS)):
            for process in self._processes.values():
                if action is not None and process.poll() is None:
                    with contextlib.suppress(OSError):
                        getattr(process, action)()
            deadline = time.monotonic() + limit
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        """End all of them now."""
        for process in self._processes.values():
            with contextlib.suppress(OSError):
                process.kill()


def own_command() -> list[str]:
    """The command that starts this program again."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is None:
        return [sys.executable, str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]
    # `python -m package` runs package.__main__, whose name is not what -m takes
    return [sys.executable, "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent(end: Callable[[], None]) -> None:
    """Call ``end`` when the process that started this one is gone, wherever the main thread is then.

    Without it a worker of a killed torchrun, or of a killed first process, would wait in a collective until its
    time-out. On Windows, where a process keeps its parent's number, the lifeline alone notices.
    """
    if not hasattr(os, "getppid") or os.name == "nt":
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        end()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
