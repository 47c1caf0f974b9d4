"""Runs of several processes: one world, one decision, one line. On a CPU, by gloo."""

import csv
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.distributed import Nursery, Ranks, processes_of
from support.small import run_settings

from litmoe import checkpoint
from litmoe.training.interruption import SAME_REQUEST_SECONDS

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="ranks are forked from one process with torch"
)

GONE_SECONDS = 10
"""Within which all ranks are gone after a death, wherever they are."""


@pytest.fixture(scope="module")
def nursery(plain_python: str) -> Iterator[Nursery]:
    with Nursery(plain_python) as nursery:
        yield nursery


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Iterator[Path]:
    """A working folder with ``run.yaml``; nothing may run there when the test is over."""
    settings: dict[str, Any] = {
        **run_settings(corpus, Path("out"), num_workers=1),
        "train": {
            "global_batch_size": 8,
            "micro_batch_size": 2,
            "max_steps": 6,
            "save_interval": 2,
            "lr_warmup_steps": 2,
            "min_lr": 0.0001,
        },
        "eval": {"interval": 4, "max_iters": 6},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.003}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    yield tmp_path
    assert processes_of(tmp_path) == []


def options(*more: str) -> list[str]:
    return ["--config", "run.yaml", *more]


def losses(out: Path) -> list[float]:
    with (out / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def said(ended: Sequence[Any]) -> list[str]:
    """All lines on stderr, each with its rank."""
    return [f"{rank} {line}" for rank, one in enumerate(ended) for line in one.lines()]


def the_only_line(ended: Sequence[Any]) -> str:
    """What all ranks together have to say: one line."""
    lines = said(ended)
    assert len(lines) == 1, lines
    return lines[0]


def one_process(nursery: Nursery, folder: Path, *more: str) -> Path:
    """The same run by one process; its folder."""
    ranks = Ranks([nursery.start(folder, options("--out-dir=alone", *more), {}, "alone")])
    (ended,) = ranks.wait()
    assert ended.code == 0, ended.err
    return folder / "alone"


def at_instant(folder: Path, name: str, limit: float = 60) -> None:
    """Wait until some rank is at a named instant."""
    deadline = time.monotonic() + limit
    while not (folder / f"at-{name}").exists():
        assert time.monotonic() < deadline, f"nobody came to {name}"
        time.sleep(0.02)


@pytest.mark.parametrize("size", [2, 4])
def test_the_launchers_world_is_one_run(size: int, nursery: Nursery, folder: Path) -> None:
    """Without ``--devices``: not a whole run per process, and the same as by one process."""
    ended = nursery.ranks(folder, size, options()).wait()
    assert [one.code for one in ended] == [0] * size, said(ended)
    assert said(ended) == []
    assert all(one.out == "" for one in ended[1:]), "only rank 0 speaks"
    assert f"on {size} device(s)" in ended[0].out
    alone = one_process(nursery, folder)
    assert losses(folder / "out") == pytest.approx(losses(alone), rel=1e-6)
    ours, theirs = (checkpoint.load_model(out / "final") for out in (folder / "out", alone))
    for name, weight in ours.items():
        assert (weight - theirs[name]).norm() <= 1e-5 * theirs[name].norm(), name


def test_a_second_run_is_kept_out_of_a_live_ones_folder(nursery: Nursery, folder: Path) -> None:
    slow = {"LITMOE_TEST_SLOW": "step@3=30"}
    live = nursery.ranks(folder, 2, options(), environ=slow)
    at_instant(folder, "step")
    rows = (folder / "out/metrics.csv").read_bytes()
    second = folder / "second"
    second.mkdir()
    ended = nursery.ranks(second, 2, ["--config", "../run.yaml", "--out-dir=../out"]).wait()
    assert [one.code for one in ended] == [2, 2]
    line = the_only_line(ended)
    assert "another run is writing there" in line
    assert (folder / "out/metrics.csv").read_bytes() == rows
    live.kill()
    live.wait()


def test_a_contradiction_is_one_line_and_nothing_is_written(nursery: Nursery, folder: Path) -> None:
    ended = nursery.ranks(folder, 2, options("--devices=3")).wait()
    assert [one.code for one in ended] == [2, 2]
    line = the_only_line(ended)
    assert "devices 3, but torchrun started 2 process(es)" in line
    assert not (folder / "out").exists()


def test_two_machines_by_their_variables(nursery: Nursery, folder: Path) -> None:
    """Each starts the command with NODE_RANK, in one shared folder."""
    from support.distributed import free_port

    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    args = options("--devices=1", "--num-nodes=2")
    ranks = Ranks(
        [nursery.start(folder, args, {**where, "NODE_RANK": str(node)}, f"node{node}") for node in (0, 1)]
    )
    ended = ranks.wait()
    assert [one.code for one in ended] == [0, 0], said(ended)
    assert "on 2 device(s)" in ended[0].out and ended[1].out == ""


def test_validation_with_fewer_windows_than_ranks(nursery: Nursery, folder: Path) -> None:
    ended = nursery.ranks(folder, 4, options("--eval.max_iters=1", "--eval.interval=2")).wait()
    assert [one.code for one in ended] == [0] * 4, said(ended)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_one_rank_ends_and_saves_all(number: int, nursery: Nursery, folder: Path) -> None:
    ranks = nursery.ranks(folder, 2, options("--max-steps=10000"))
    ranks.wait_for(0, "step 3/")
    ranks[1].send(number)
    ended = ranks.wait(30)
    assert [one.code for one in ended] == [128 + number] * 2, said(ended)
    lines = [line for line in said(ended) if "finishing this step" not in line]
    assert len(lines) == 1 and lines[0].startswith("0 ") and "--resume auto goes on" in lines[0]
    assert checkpoint.newest(folder / "out", pytest.fail) is not None


def test_a_second_signal_leaves_at_once_from_a_collective(nursery: Nursery, folder: Path) -> None:
    """Rank 1 is slow; rank 0 waits for it, where no Python code runs."""
    ranks = nursery.ranks(folder, 2, options(), of_rank={1: {"LITMOE_TEST_SLOW": "data@9=60"}})
    at_instant(folder, "data")
    time.sleep(0.5)
    ranks[0].send(signal.SIGTERM)
    time.sleep(SAME_REQUEST_SECONDS + 0.2)
    assert ranks[0].poll() is None
    ranks[0].send(signal.SIGTERM)
    ended = ranks.wait(GONE_SECONDS)
    assert ended[0].code == 143 and ended[0].seconds < 2
    assert ended[1].code == 1
    assert any("1 litmoe: rank 0: its process is gone" in line for line in said(ended))


def test_a_rank_that_never_comes_is_waited_for_within_the_limit(nursery: Nursery, folder: Path) -> None:
    """Alive, but stuck: here in its data."""
    stuck = {1: {"LITMOE_TEST_SLOW": "data@9=100"}}
    ended = nursery.ranks(folder, 2, options("--faults.rank-timeout=4"), of_rank=stuck).wait(40)
    assert [one.code for one in ended] == [1, 1], said(ended)
    line = the_only_line(ended)
    assert "rank 0 waited 4 s for another rank" in line and "--faults.rank-timeout" in line


def test_an_error_common_to_all_waits_for_the_checkpoint(nursery: Nursery, folder: Path) -> None:
    """The others do not leave, which would end rank 0, while it writes."""
    diverges = ["--optimizer.init_args.lr=1e12", "--train.min_lr=0", "--train.max_norm=null"]
    diverges += ["--train.lr_warmup_steps=3", "--train.save_interval=1", "--max-steps=50"]
    slow = {"LITMOE_TEST_SLOW": "save=6"}
    ended = nursery.ranks(folder, 2, options(*diverges), environ=slow).wait()
    assert [one.code for one in ended] == [2, 2]
    line = the_only_line(ended)
    assert "the loss is nan" in line or "the gradient norm is" in line
    assert checkpoint.newest(folder / "out", pytest.fail) is not None


@pytest.mark.parametrize("instant", ["setup", "data@9", "step@2", "validate", "metrics@2", "save@2"])
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_is_one_line(instant: str, rank: int, nursery: Nursery, folder: Path) -> None:
    if rank == 1 and instant.startswith("save"):
        pytest.skip("only rank 0 writes checkpoints")
    fails = {rank: {"LITMOE_TEST_FAIL": f"{instant}=error"}}
    ranks = nursery.ranks(folder, 2, options(), of_rank=fails)
    at_instant(folder, instant.partition("@")[0])
    ended = ranks.wait(GONE_SECONDS)
    assert [one.code for one in ended] == [2, 2], said(ended)
    line = the_only_line(ended)
    assert line.startswith("0 ") and line.endswith("a test made this fail")
    assert rank == 0 or "rank 1: " in line


@pytest.mark.parametrize("instant", ["setup", "data@9", "step@2", "validate", "save@2", "sample"])
@pytest.mark.parametrize("victim", [0, 1])
def test_all_are_gone_soon_after_a_death(instant: str, victim: int, nursery: Nursery, folder: Path) -> None:
    """Wherever the others are; the run then resumes with another number of processes, and is the same run."""
    if victim == 1 and instant.startswith(("save", "sample")):
        pytest.skip("rank 0's work")
    more = ["--sample.interval=3", "--sample.max_new_tokens=4"]
    dies = {victim: {"LITMOE_TEST_FAIL": f"{instant}=kill"}}
    ranks = nursery.ranks(folder, 3 if victim else 2, options(*more, "--global-batch-size=12"), of_rank=dies)
    at_instant(folder, instant.partition("@")[0])
    ended = ranks.wait(GONE_SECONDS)
    assert [one.code for one in ended] == [-9 if n == victim else 1 for n in range(len(ended))], said(ended)
    line = the_only_line(ended)
    assert f"rank {victim}: its process is gone" in line and "--resume auto goes on" in line
    resumed = nursery.ranks(folder, 1, options(*more, "--global-batch-size=12", "--resume=auto")).wait()
    assert resumed[0].code == 0, said(resumed)
    alone = one_process(nursery, folder, *more, "--global-batch-size=12")
    assert losses(folder / "out") == pytest.approx(losses(alone), rel=1e-5)


def test_ranks_with_other_text_are_refused(nursery: Nursery, folder: Path, corpus: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "a.txt").write_text("Another text.\n" * 400)
    args = {1: [f"--data.init_args.train_data_path={other}"]}
    ended = nursery.ranks(folder, 2, options(), args_of_rank=args).wait()
    assert [one.code for one in ended] == [2, 2]
    line = the_only_line(ended)
    assert "rank 1 differs from rank 0 in the training text" in line
    assert not list((folder / "out").glob("step-*"))


def test_a_restarted_run_resumes_by_itself(nursery: Nursery, folder: Path) -> None:
    """As torchrun's ``--max-restarts`` starts it again."""
    first = nursery.ranks(folder, 2, options(), of_rank={1: {"LITMOE_TEST_FAIL": "step@5=kill"}}).wait()
    assert [one.code for one in first] == [1, -9]
    again = {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_RUN_ID": "x"}
    ended = nursery.ranks(folder, 2, options(), environ=again).wait()
    assert [one.code for one in ended] == [0, 0], said(ended)
    assert (
        "restart 1 by torchrun: resumes" in ended[0].out and "resumes from out/step-0000000" in ended[0].out
    )
    assert len(losses(folder / "out")) == 6


def test_a_killed_parent_leaves_no_orphans(plain_python: str, folder: Path) -> None:
    """Where litmoe starts the processes itself, and the first of them dies."""
    import subprocess

    from support.distributed import SCRIPT

    command = [plain_python, str(SCRIPT), *options("--devices=2", "--max-steps=100000")]
    with (folder / "out.txt").open("w") as out:
        parent = subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    deadline = time.monotonic() + 120
    while "step 2/" not in (folder / "out.txt").read_text():
        assert parent.poll() is None and time.monotonic() < deadline, (folder / "out.txt").read_text()
        time.sleep(0.1)
    assert len(processes_of(folder)) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + GONE_SECONDS
    while processes_of(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
