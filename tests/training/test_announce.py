"""The start lines: what a person may not have meant is said before the first step."""

from collections.abc import Callable
from pathlib import Path

import pytest

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.training import resume
from litmoe.training.loop import train
from litmoe.training.recording.announce import announce
from litmoe.training.recording.events import EventLog
from litmoe.training.schedule import learning_rate
from litmoe.training.setup import set_up
from litmoe.training.threads import _advice, _quota

MakeConfig = Callable[..., TrainConfig]


def start_lines(config: TrainConfig, folder: Path | None = None) -> dict[str, str]:
    """The start lines by their first word; notes are under ``note``, joined."""
    said: list[str] = []
    run = set_up(config, EventLog(said.append))
    try:
        if folder is not None:
            resume.load(run, folder)
        announce(run, folder)
    finally:
        run.close()
    lines: dict[str, str] = {}
    for line in said:
        name, _, text = line.partition(" ")
        lines[name.rstrip(":")] = f"{lines.get(name.rstrip(':'), '')} {text.strip()}".strip()
    return lines


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "warm-up over 2 steps, then learning rate 0.003 decays to 0.0001 at step 6 (cosine)"),
        (["--train.lr_warmup_steps=0"], "learning rate 0.003 decays to 0.0001 at step 6 (cosine)"),
        (["--schedule.name=constant"], "warm-up over 2 steps, then learning rate 0.003 to the end"),
        (
            ["--schedule.name=wsd", "--schedule.decay_fraction=0.5"],
            "warm-up over 2 steps, then learning rate 0.003, and over the last 3 steps decays to 0.0001 at step 6",
        ),
    ],
)
def test_the_schedule_has_a_line(make_config: MakeConfig, args: list[str], expected: str) -> None:
    config = make_config(*args)
    assert start_lines(config)["schedule"] == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--train.lr_warmup_steps=50"], "warm-up of 50 steps is longer than the run of 6"),
        (["--schedule.name=constant", "--train.min_lr=0.0002"], "train.min_lr 0.0002 has no effect"),
        (["--global-batch-size=512"], "train.global_batch_size 512 is more than the"),
    ],
)
def test_what_cannot_mean_what_it_says_is_said(
    make_config: MakeConfig, args: list[str], expected: str
) -> None:
    assert expected in start_lines(make_config(*args))["note"]
    assert expected not in start_lines(make_config()).get("note", "")


def test_a_longer_resume_that_makes_the_rate_jump_says_both_rates(
    make_config: MakeConfig, finished: Path
) -> None:
    """From the end of one cosine to the middle of another."""
    folder = finished / "final"
    config = make_config("--resume=auto", "--max-steps=60")
    line = start_lines(config, folder)["start"]
    run = set_up(config)
    coming = learning_rate(6, run.peak_lr, config.train.min_lr, run.horizon, config.schedule)
    run.close()
    assert f"the learning rate goes from 0.0001 to {coming:.3g}, because the schedule has changed" in line
    assert coming > 0.0025
    same = start_lines(make_config("--resume=auto"), checkpoint.step_folder(finished, 4))["start"]
    assert same.endswith("(step 4)")


def test_a_checkpoint_without_the_rate_has_it_from_the_optimizer(
    make_config: MakeConfig, finished: Path, tmp_path: Path
) -> None:
    """As those of version 0.1.0."""
    run = set_up(make_config())
    resume.load(run, finished / "final")
    run.state.learning_rate = None
    checkpoint.save(tmp_path / "old", resume.contents(run))
    run.close()
    line = start_lines(make_config("--resume=auto", "--max-steps=60"), tmp_path / "old")["start"]
    assert "the learning rate goes from 0.0001 to" in line


def test_lines_come_before_the_first_step(make_config: MakeConfig) -> None:
    said: list[str] = []
    train(make_config("--train.lr_warmup_steps=50", "--max-steps=2"), said.append)
    notes = [number for number, line in enumerate(said) if line.startswith("note: the warm-up")]
    steps = [number for number, line in enumerate(said) if line.startswith("step 1/2")]
    assert notes and steps and notes[0] < steps[0]


@pytest.mark.parametrize(
    ("threads", "cores", "quota", "load", "advice"),
    [
        (1, 2, None, 9.0, None),
        (2, 2, None, 1.0, None),
        (2, 2, None, 2.0, "OMP_NUM_THREADS=1 may be many times faster"),
        (16, 16, None, 3.0, None),
        (16, 16, None, 9.0, "OMP_NUM_THREADS=8 may be many times faster"),
        (4, 2, None, 0.0, "torch uses 4 threads on 2 cores: OMP_NUM_THREADS=2 is faster"),
        (8, 8, 2.0, 0.0, "this container has the time of 2 cores: OMP_NUM_THREADS=2"),
        (2, 8, 1.5, 0.0, None),
        (2, 8, 0.5, 0.0, "OMP_NUM_THREADS=1"),
    ],
)
def test_threads_that_would_wait_for_each_other(
    threads: int, cores: int, quota: float | None, load: float, advice: str | None
) -> None:
    found = _advice(threads, cores, quota, load)
    assert (found is None) if advice is None else (found is not None and advice in found)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_time_that_a_container_gives(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _quota(tmp_path) == expected
