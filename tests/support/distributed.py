"""Several processes of one run: started as a launcher would, watched, killed, and asked what became of them.

Importing torch takes a process seconds, and a test of four ranks would take half a minute of it. So one
process (the
*nursery*) imports everything once, and forks for every rank. A rank is a real process with its own environment,
output files and signal handlers; torch is imported but has not been used before the fork.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

SCRIPT = Path(__file__).with_name("rank.py")
LIMIT = 120.0
"""Seconds that a test waits for what takes a few, on a machine under any load."""


@dataclass
class Ended:
    """What became of one process."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    out: str
    err: str
    seconds: float
    """From the start of waiting to its end."""

    def lines(self) -> list[str]:
        """The lines on stderr that say something."""
        return [line for line in self.err.splitlines() if line.strip()]


@dataclass
class Rank:
    """One process under way."""

    pid: int
    out: Path
    err: Path
    nursery: "Nursery"
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.code is None:
            self.code = self.nursery.poll(self.pid)
        return self.code

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def text(self) -> str:
        """What it has printed so far."""
        return self.out.read_text(encoding="utf-8", errors="replace")


@dataclass
class Ranks:
    """The processes of one run."""

    ranks: list[Rank] = field(default_factory=list)

    def __getitem__(self, rank: int) -> Rank:
        return self.ranks[rank]

    def wait(self, limit: float = LIMIT) -> list[Ended]:
        """Wait until all have ended; they are killed, and the test fails, where one takes longer."""
        started = time.monotonic()
        ended: dict[int, Ended] = {}
        while len(ended) < len(self.ranks):
            for number, rank in enumerate(self.ranks):
                if number not in ended and (code := rank.poll()) is not None:
                    err = rank.err.read_text(encoding="utf-8", errors="replace")
                    ended[number] = Ended(code, rank.text(), err, time.monotonic() - started)
            if time.monotonic() - started > limit:
                left = [number for number in range(len(self.ranks)) if number not in ended]
                words = "\n".join(
                    f"-- rank {n}\n{r.text()}\n{r.err.read_text()}" for n, r in enumerate(self.ranks)
                )
                self.kill()
                raise AssertionError(f"ranks {left} still run after {limit:.0f} s\n{words}")
            time.sleep(0.05)
        return [ended[number] for number in range(len(self.ranks))]

    def wait_for(self, rank: int, words: str, limit: float = LIMIT) -> None:
        """Wait until a rank has printed something."""
        deadline = time.monotonic() + limit
        while words not in self.ranks[rank].text():
            gone = [r.poll() for r in self.ranks]
            err = self.ranks[rank].err.read_text(encoding="utf-8", errors="replace")
            assert time.monotonic() < deadline and gone[rank] is None, (gone, self.ranks[rank].text(), err)
            time.sleep(0.02)

    def kill(self) -> None:
        """End all that still run."""
        for rank in self.ranks:
            if rank.poll() is None:
                rank.send(signal.SIGKILL)


class Nursery:
    """Forks ranks. Leaving the block ends every one that still runs."""

    def __init__(self, python: str) -> None:
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        for name in [n for n in environ if n.startswith(("SLURM_", "TORCHELASTIC_"))]:
            del environ[name]
        self._process = subprocess.Popen(
            [python, str(SCRIPT), "--nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        assert self._answer() == "ready"
        self._pids: set[int] = set()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def start(self, folder: Path, args: Sequence[str], environ: Mapping[str, str], name: str) -> Rank:
        """Fork one process that runs ``litmoe train`` with these arguments, in ``folder``."""
        out, err = folder / f"{name}.out", folder / f"{name}.err"
        for file in (out, err):  # of an earlier run in this folder
            file.unlink(missing_ok=True)
        pid = self._ask(
            do="fork", cwd=str(folder), args=list(args), env=dict(environ), out=str(out), err=str(err)
        )
        self._pids.add(pid)
        return Rank(pid, out, err, self)

    def poll(self, pid: int) -> int | None:
        """A forked process's exit code, once it has ended."""
        code: int | None = self._ask(do="poll", pid=pid)
        return code

    def ranks(
        self,
        folder: Path,
        size: int,
        args: Sequence[str],
        nodes: int = 1,
        environ: Mapping[str, str] | None = None,
        of_rank: Mapping[int, Mapping[str, str]] | None = None,
        args_of_rank: Mapping[int, Sequence[str]] | None = None,
    ) -> Ranks:
        """Start all ranks of a world as torchrun does, by its variables."""
        port, local = free_port(), size // nodes
        started = Ranks()
        for rank in range(size):
            variables = {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "LOCAL_RANK": str(rank % local),
                "LOCAL_WORLD_SIZE": str(local),
                "GROUP_RANK": str(rank // local),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                **(environ or {}),
                **(of_rank or {}).get(rank, {}),
            }
            own = [*args, *(args_of_rank or {}).get(rank, ())]
            started.ranks.append(self.start(folder, own, variables, f"rank{rank}"))
        return started

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(timeout=30)
        for pid in self._pids:
            with no_such_process():
                os.kill(pid, signal.SIGKILL)


@contextmanager
def no_such_process() -> Iterator[None]:
    """Pass over a process that is gone already."""
    try:
        yield
    except (ProcessLookupError, psutil.NoSuchProcess):
        return


def processes_of(folder: Path) -> list[int]:
    """Processes that work in a folder: what a test must not leave behind."""
    found = []
    for process in psutil.process_iter(["pid", "cwd", "status"]):
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["pid"])
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_script() -> list[str]:
    """The command that trains in a process of its own, without the nursery."""
    return [sys.executable, str(SCRIPT)]
