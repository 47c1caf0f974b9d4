"""Runs of several processes whose ranks are killed at random instants, and what must hold each time.

Used by ``tests/distributed/test_kills.py`` and, for longer, by ``benchmarks/rank_kills.py``.
"""

import csv
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from litmoe import checkpoint
from support.distributed import Nursery, Ranks, processes_of

GONE_SECONDS = 10
"""Within which all ranks are gone after a death, wherever they are."""
STEPS = 24
SAVE_INTERVAL = 3
GLOBAL_BATCH = 12
SIZES = (2, 3, 4)
INSTANTS = {"setup": 1, "data": 40, "step": 8, "validate": 2, "save": 3, "sample": 2, "metrics": 8}
"""Where a rank is killed, and at which of its calls at most."""


@dataclass
class Kills:
    """What happened."""

    killed: list[str] = field(default_factory=list)
    """Instant and rank of every kill that hit a running process."""
    slowest: float = 0.0
    """Seconds until the last rank was gone, at most."""
    most_lost: int = 0
    """Steps done but not in the newest checkpoint, at most."""
    finished: int = 0
    """Runs that came to their end."""


def options(out: str) -> list[str]:
    """The run: ``run.yaml`` in the folder has model and data."""
    return [
        "--config=run.yaml",
        f"--out-dir={out}",
        "--resume=auto",
        f"--max-steps={STEPS}",
        f"--global-batch-size={GLOBAL_BATCH}",
        "--micro-batch-size=1",
        f"--train.save-interval={SAVE_INTERVAL}",
        "--eval.interval=5",
        "--eval.max-iters=5",
        "--sample.interval=7",
        "--sample.max-new-tokens=4",
    ]


def kill_again_and_again(
    nursery: Nursery, folder: Path, kills: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> Kills:
    """Start runs of 2 to 4 ranks, kill one of them, resume with another number; until so many kills have hit.

    After every kill: all ranks are gone in time and in one line; the newest checkpoint is whole; the metrics
    have no gap; no more is lost than what was trained since the last two saves. At the end of every run: its
    losses are those of one undisturbed process.
    """
    chance, outcome = random.Random(seed), Kills()
    alone = nursery.start(folder, options("alone"), {}, "alone")
    (ended,) = Ranks([alone]).wait()
    assert ended.code == 0, ended.err
    expected = losses(folder / "alone")
    while len(outcome.killed) < kills:
        out = folder / "killed"
        size = chance.choice(SIZES)
        instant = chance.choice(list(INSTANTS))
        victim = 0 if instant in ("save", "sample") else chance.randrange(size)
        call = chance.randint(1, INSTANTS[instant])
        fails = {victim: {"LITMOE_TEST_FAIL": f"{instant}@{call}=kill"}}
        ranks = nursery.ranks(folder, size, options("killed"), of_rank=fails)
        died = wait_for_death(ranks, victim)
        ended_all = ranks.wait(GONE_SECONDS if died else 60)
        assert processes_of(folder) == []
        codes = [one.code for one in ended_all]
        if not died:  # the run was done before that instant came
            assert codes == [0] * size, [one.err for one in ended_all]
            compare(losses(out), expected)
            shutil.rmtree(out)
            outcome.finished += 1
            continue
        assert codes == [-signal.SIGKILL if rank == victim else 1 for rank in range(size)], (
            codes,
            fails,
            [(one.out[-400:], one.err) for one in ended_all],
        )
        lines = [line for one in ended_all for line in one.lines()]
        assert len(lines) == 1 and f"rank {victim}: its process is gone" in lines[0], lines
        outcome.slowest = max(outcome.slowest, *(one.seconds for one in ended_all))
        outcome.killed.append(f"{instant} of rank {victim} of {size}")
        say(f"{len(outcome.killed)}/{kills} {outcome.killed[-1]}, call {call}")
        if (out / "metrics.csv").exists():
            done = losses(out)
            newest = checkpoint.newest(out, _unwanted)
            saved = 0 if newest is None else int(checkpoint.load_trainer(newest)["state"]["step"])
            outcome.most_lost = max(outcome.most_lost, len(done) - saved)
            assert len(done) - saved <= 2 * SAVE_INTERVAL, (len(done), saved)
            compare(done, expected[: len(done)])
    return outcome


def wait_for_death(ranks: Ranks, victim: int) -> bool:
    """Wait until a rank has ended; whether it was killed."""
    deadline = time.monotonic() + 120
    while ranks[victim].poll() is None:
        assert time.monotonic() < deadline, "the rank neither dies nor ends"
        time.sleep(0.02)
    return ranks[victim].poll() == -signal.SIGKILL


def losses(out: Path) -> list[float]:
    """Training loss by step; every step is there once."""
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1)), [row["step"] for row in rows]
    return [float(row["train_loss"]) for row in rows]


def compare(ours: list[float], expected: list[float]) -> None:
    """The same samples in the same order: the losses differ by rounding."""
    assert len(ours) == len(expected)
    for step, (one, other) in enumerate(zip(ours, expected, strict=True), 1):
        assert abs(one - other) <= 1e-5 * other, (step, one, other)


def _unwanted(line: str) -> None:
    raise AssertionError(f"a checkpoint that is not whole: {line}")
