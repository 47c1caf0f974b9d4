"""Real processes that live, fail and die together: no torch in them, so that each starts in a moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from litmoe.distributed.lifeline import DEATH_SECONDS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

GONE_SECONDS = 10  # within which all are gone after a death, as promised

RANK = """
import json, os, sys, time
from pathlib import Path
from litmoe.distributed.session import Session
from litmoe.distributed.world import launched_world
from litmoe.errors import LitMoEError, RunInterrupted

def exchange(value):
    meeting = Path("meeting")
    if value is not None:
        beside = Path("meeting.tmp")
        beside.write_text(json.dumps(value))
        beside.replace(meeting)
        return value
    while not meeting.exists():
        time.sleep(0.01)
    return json.loads(meeting.read_text())

world = launched_world(os.environ)
rank = world.rank
try:
    with Session(world, wait_limit=20) as session:
        session.connect(exchange)
        Path(f"ready{rank}").touch()
        exec(Path("work.py").read_text())
except RunInterrupted as ended:
    print(f"says: {ended}", file=sys.stderr); sys.exit(ended.exit_code)
except LitMoEError as error:
    print(f"says: {error}", file=sys.stderr); sys.exit(getattr(error, "exit_code", 2))
"""


class Family:
    """The ranks of a test."""

    def __init__(self, folder: Path, size: int, work: str) -> None:
        (folder / "work.py").write_text(work)
        self.folder = folder
        self.processes = []
        for rank in range(size):
            world = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
            environ = {**os.environ, **{name: str(value) for name, value in world.items()}}
            environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
            with (folder / f"err{rank}").open("w") as err:
                process = subprocess.Popen(
                    [sys.executable, "-c", RANK],
                    cwd=folder,
                    env=environ,
                    stderr=err,
                    stdin=subprocess.DEVNULL,
                )
            self.processes.append(process)
        deadline = time.monotonic() + 60
        while not all((folder / f"ready{rank}").exists() for rank in range(size)):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def codes(self, limit: float) -> list[int]:
        deadline = time.monotonic() + limit
        return [process.wait(max(0.01, deadline - time.monotonic())) for process in self.processes]

    def said(self) -> list[str]:
        """The lines of all ranks, each with the rank that said it."""
        lines = []
        for rank in range(len(self.processes)):
            lines += [f"{rank} {line}" for line in (self.folder / f"err{rank}").read_text().splitlines()]
        return lines

    def __enter__(self) -> "Family":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def test_a_run_that_is_done_ends_in_silence(tmp_path: Path) -> None:
    with Family(tmp_path, 3, "time.sleep(0.2 * rank)") as family:
        assert family.codes(20) == [0, 0, 0]
        assert family.said() == []


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_all_are_gone_soon_after_a_death(victim: int, tmp_path: Path) -> None:
    """Their main threads hang, as in a collective that the dead rank will never join."""
    with Family(tmp_path, 3, "time.sleep(60)") as family:
        family.processes[victim].send_signal(signal.SIGKILL)
        codes = family.codes(GONE_SECONDS)
        assert codes == [-9 if rank == victim else 1 for rank in range(3)]
        (line,) = family.said()
        speaker = 1 if victim == 0 else 0
        assert line.startswith(f"{speaker} litmoe: rank {victim}: its process is gone")
        assert line.endswith("--resume auto goes on from the newest checkpoint")


def test_a_broken_collective_says_who_is_gone(tmp_path: Path) -> None:
    """What a collective raises when the other side has closed its socket is not the news."""
    work = """
time.sleep(0.3)
if rank == 1:
    os._exit(7)
time.sleep(0.5)
raise RuntimeError("Connection closed by peer")
"""
    with Family(tmp_path, 3, work) as family:
        assert family.codes(GONE_SECONDS) == [1, 7, 1]
        (line,) = family.said()
        assert line.startswith("0 says: rank 1: its process is gone")


def test_an_error_of_one_rank_is_said_once_and_ends_all(tmp_path: Path) -> None:
    work = "if rank == 2: raise LitMoEError('data/x: no such file')\ntime.sleep(60)"
    with Family(tmp_path, 3, work) as family:
        assert family.codes(DEATH_SECONDS + 5) == [2, 2, 2]
        assert family.said() == ["0 litmoe: rank 2: data/x: no such file"]


def test_an_error_of_rank_0_is_its_own_to_say(tmp_path: Path) -> None:
    work = "if rank == 0: raise LitMoEError('metrics.csv: the disk is full')\ntime.sleep(60)"
    with Family(tmp_path, 3, work) as family:
        assert family.codes(DEATH_SECONDS + 5) == [2, 2, 2]
        assert family.said() == ["0 says: metrics.csv: the disk is full"]


def test_nobody_leaves_before_rank_0_has_finished_what_it_writes(tmp_path: Path) -> None:
    """Every launcher takes a process that ends with an error for a reason to kill the others."""
    work = f"""
try:
    raise RunInterrupted("stopped by SIGTERM", 143)
finally:
    session.leaving()
    if rank == 0:
        time.sleep({DEATH_SECONDS + 1})
        Path("written").touch()
    else:
        Path(f"left{{rank}}").touch()
"""
    with Family(tmp_path, 3, work) as family:
        while not (tmp_path / "written").exists():
            assert [process.poll() for process in family.processes] == [None] * 3 or (
                tmp_path / "written"
            ).exists()
            time.sleep(0.05)
        assert family.codes(10) == [143, 143, 143]
        assert family.said() == ["0 says: stopped by SIGTERM"]


def test_a_fault_of_the_program_keeps_its_traceback_where_it_is(tmp_path: Path) -> None:
    with Family(tmp_path, 2, "if rank == 1: raise KeyError('bug')\ntime.sleep(60)") as family:
        assert family.codes(DEATH_SECONDS + 8) == [1, 1]
        said = family.said()
        assert said[0].startswith("0 litmoe: rank 1: KeyError: 'bug'")
        assert "1 Traceback (most recent call last):" in said


def test_a_slow_rank_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Stopped, swapped out, or in a long call: only the end of its socket counts."""
    with Family(tmp_path, 2, "time.sleep(1)") as family:
        family.processes[0].send_signal(signal.SIGSTOP)
        time.sleep(DEATH_SECONDS + 2)
        assert family.processes[1].poll() is None  # it waits for rank 0, within the limit
        family.processes[0].send_signal(signal.SIGCONT)
        assert family.codes(20) == [0, 0]
        assert family.said() == []
