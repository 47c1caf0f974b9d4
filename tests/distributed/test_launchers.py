"""torchrun itself, and the variables of SLURM, around the same command."""

import csv
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.distributed import SCRIPT, Nursery, Ranks, free_port, processes_of
from support.small import run_settings

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="ranks are forked from one process with torch"
)

STEPS = 6


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Path:
    """A working folder with ``run.yaml``."""
    settings: dict[str, Any] = {
        **run_settings(corpus, Path("out"), num_workers=1),
        "train": {"global_batch_size": 8, "micro_batch_size": 2, "max_steps": STEPS, "save_interval": 2}
        | {"lr_warmup_steps": 2, "min_lr": 0.0001},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.003}},
        "report": False,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def torchrun(python: str, folder: Path, *options: str, fail: str = "") -> subprocess.CompletedProcess[str]:
    """Run torchrun around the test's script; returns what became of it."""
    command = [python, "-m", "torch.distributed.run", *options, str(SCRIPT), "--config=run.yaml"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "LITMOE_TEST_FAIL": fail}
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False
    )


def steps(folder: Path) -> list[int]:
    with (folder / "out/metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_torchrun_starts_one_run_and_restarts_it(folder: Path, plain_python: str) -> None:
    """Both ranks die in their fifth step, once: torchrun starts them again, and the run goes on."""
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    done = torchrun(plain_python, folder, *options, fail="step@5=kill-once")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("on 2 device(s)") == 2, done.stdout
    assert "restart 1 by torchrun: resumes" in done.stdout and "resumes from out/step-0000000" in done.stdout
    assert steps(folder) == list(range(1, STEPS + 1))
    assert processes_of(folder) == []


def test_slurms_variables_make_one_run(folder: Path, plain_python: str) -> None:
    """Two tasks on one node, as srun starts them; it is resumed after a requeue."""
    step = {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
    }
    with Nursery(plain_python) as nursery:
        for restarts, args in ((0, ["--max-steps=4"]), (1, [])):
            place = step | {"MASTER_PORT": str(free_port()), "SLURM_RESTART_COUNT": str(restarts)}
            ranks = Ranks()
            for task in ("0", "1"):
                variables = place | {"SLURM_PROCID": task, "SLURM_LOCALID": task}
                ranks.ranks.append(
                    nursery.start(folder, ["--config=run.yaml", *args], variables, f"task{restarts}{task}")
                )
            ended = ranks.wait()
            assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
            assert "on 2 device(s)" in ended[0].out and ended[1].out == ""
    assert "restart 1 by slurm: resumes" in ended[0].out
    assert steps(folder) == list(range(1, STEPS + 1))
