"""Checkpoints while training: what is written, when, how many, and what a full disk or a kill does to it."""

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litmoe import checkpoint
from litmoe.checkpoint import expendable
from litmoe.config import CheckpointArgs, TrainConfig, as_plain
from litmoe.errors import DiskFullError, LitMoEError
from litmoe.messages import Say, silent
from litmoe.training import resume
from litmoe.training.recording.events import EventLog
from litmoe.training.run import Run
from litmoe.training.saving import (
    CheckpointWriter,
    checkpoint_bytes,
    checkpoints_to_come,
    host_bytes,
    warn_if_disk_small,
)
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update

MakeConfig = Callable[..., TrainConfig]


def advance(run: Run, steps: int = 1) -> None:
    """Train, without the loop around it."""
    for _ in range(steps):
        figures = gradients(run, run.data())
        update(run, figures, learning_rate=0.003)
        run.state.step += 1
        run.state.samples += run.config.train.global_batch_size
        run.state.train_loss = figures.train_loss


@contextlib.contextmanager
def running(config: TrainConfig) -> Iterator[Run]:
    run = set_up(config)
    try:
        yield run
    finally:
        run.close()


def writer_of(run: Run, say: Say = silent, **more: Any) -> CheckpointWriter:
    return CheckpointWriter(run.fabric, run.config, EventLog(say), **more)


def step_folder(run: Run, step: int | None = None) -> Path:
    return checkpoint.step_folder(run.config.out_dir, run.state.step if step is None else step)


def steps_in(out_dir: Path) -> list[int]:
    """The steps of the checkpoints under a final name; fails if one of them is not whole.

    A removal that was cut short leaves a folder that is marked as removed, or empty: no checkpoint.
    """
    folders = [
        f for f in out_dir.glob("step-*") if any(f.iterdir()) and not (f / checkpoint.REMOVED).exists()
    ]
    return sorted(checkpoint.verify(folder)["step"] for folder in folders)


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, in all that is nested."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("words", [[], ["--moe.balance=bias"], ["--train.tie_embeddings=true"]])
def test_what_is_written_is_the_state_at_the_call(make_config: MakeConfig, words: list[str]) -> None:
    """The files of asynchronous saves, to the byte those of synchronous ones, while training goes on."""
    config = make_config(*words)
    with running(config) as run, writer_of(run) as writer:
        for _ in range(3):
            advance(run)
            expected = config.out_dir / f"expected-{run.state.step}"
            checkpoint.save(expected, resume.contents(run, val_loss=1.5))
            before = run.gpt.lm_head.weight.clone()
            writer.save(run, step_folder(run), val_loss=1.5)
            step = run.state.step
            advance(run, 2)
            writer.wait()
            assert not torch.equal(before, run.gpt.lm_head.weight)
            written = step_folder(run, step)
            one, other = (checkpoint.verify(folder) for folder in (expected, written))
            for manifest in (one, other):
                # the same content, but pickle writes an object that is met twice as a reference
                del manifest["created"], manifest["files"]["trainer_state.pth"]
            assert one == other  # sizes and checksums of all other files
            assert same(checkpoint.load_model(expected), checkpoint.load_model(written))
            assert same(checkpoint.load_trainer(expected), checkpoint.load_trainer(written))


def test_memory_is_used_again_and_foretold(make_config: MakeConfig) -> None:
    with running(make_config()) as run:
        foretold = host_bytes(run)  # before there is any optimizer state
        with writer_of(run) as writer:
            assert writer.host_bytes == 0
            taken = []
            for _ in range(3):
                advance(run)
                writer.save(run, step_folder(run))
                writer.wait()
                taken.append((writer.host_bytes, [b.data_ptr() for b in writer._memory._buffers]))
            assert taken[0] == taken[1] == taken[2]
            assert taken[0][0] <= foretold <= 1.2 * taken[0][0]
            files = sum(path.stat().st_size for path in step_folder(run).iterdir())
            assert files <= checkpoint_bytes(run) <= 1.2 * files
        assert writer.host_bytes == 0
        run.config.checkpoint.asynchronous = False
        assert host_bytes(run) == 0


@pytest.mark.parametrize("optimizer", ["SGD", "Adafactor", "NAdam", "Adagrad"])
def test_the_size_is_foretold_for_any_optimizer(make_config: MakeConfig, optimizer: str) -> None:
    with running(make_config(f"--optimizer={optimizer}", "--optimizer.init_args.lr=0.01")) as run:
        foretold = checkpoint_bytes(run)
        advance(run)
        assert checkpoint_bytes(run) <= 1.05 * foretold


def test_one_save_at_a_time_and_the_second_waits(make_config: MakeConfig) -> None:
    said: list[str] = []
    with running(make_config()) as run, writer_of(run, said.append) as writer:
        advance(run)
        for step in range(1, 6):
            run.state.step = step
            writer.save(run, step_folder(run))
            assert steps_in(run.config.out_dir)[: step - 1] == list(range(1, step))
            names = [thread.name for thread in threading.enumerate()]
            assert sum(name.startswith("checkpoint") for name in names) == 1
        writer.wait()
    assert said == [f"saved {step_folder(run, step)}" for step in range(1, 6)]
    assert not any(thread.name.startswith("checkpoint") for thread in threading.enumerate())


def test_synchronous_saves_are_on_the_disk_at_once(make_config: MakeConfig) -> None:
    with running(make_config("--checkpoint.asynchronous=false")) as run, writer_of(run) as writer:
        advance(run)
        writer.save(run, step_folder(run))
        assert steps_in(run.config.out_dir) == [1]
        assert writer.host_bytes == 0


def block(run: Run) -> Path:
    """Put a file where the temporary folder of the next checkpoint belongs: it cannot be written."""
    run.config.out_dir.mkdir(parents=True, exist_ok=True)
    folder = step_folder(run)
    path = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    path.write_text("in the way")
    return path


@pytest.mark.parametrize("call", ["save", "poll", "wait", "save_final", "leave"])
def test_a_failed_save_is_raised_at_the_next_call(make_config: MakeConfig, call: str) -> None:
    with running(make_config()) as run:
        advance(run)
        in_the_way = block(run)
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(writer_of(run))
            writer.save(run, step_folder(run))
            advance(run)
            if call == "poll":
                with pytest.raises(LitMoEError, match="could not be written"):
                    while True:
                        writer.poll()
            elif call == "leave":
                with pytest.raises(LitMoEError, match="could not be written"):
                    stack.close()
                return
            else:
                arguments: dict[str, list[Any]] = {
                    "save": [run, step_folder(run)],
                    "save_final": [run],
                    "wait": [],
                }
                with pytest.raises(LitMoEError, match="could not be written"):
                    getattr(writer, call)(*arguments[call])
            in_the_way.unlink()
            writer.save(run, step_folder(run))  # it is raised once; then the writer works again
            writer.wait()
            assert steps_in(run.config.out_dir) == [2]


def test_an_exception_waits_for_the_save_and_is_not_hidden(make_config: MakeConfig) -> None:
    said: list[str] = []
    with running(make_config()) as run:
        advance(run)
        with pytest.raises(KeyboardInterrupt), writer_of(run, said.append) as writer:
            writer.save(run, step_folder(run))
            raise KeyboardInterrupt
        assert steps_in(run.config.out_dir) == [1]
        run.state.step = 2
        block(run)
        with pytest.raises(KeyError, match="the first error"), writer_of(run, said.append) as writer:
            writer.save(run, step_folder(run))
            raise KeyError("the first error")
    assert "the last checkpoint failed" in said[-1] and "could not be written" in said[-1]


@pytest.mark.parametrize("step", [3, 4])
def test_final_is_written_with_its_step_copy_where_one_is_due(make_config: MakeConfig, step: int) -> None:
    with running(make_config("--checkpoint.keep_last=1")) as run, writer_of(run) as writer:
        advance(run, 2)
        writer.save(run, step_folder(run))
        advance(run, step - 2)
        folder = writer.save_final(run, val_loss=2.0)
        assert folder == run.config.out_dir / "final"
        manifest = checkpoint.verify(folder)
        assert (manifest["step"], manifest["val_loss"]) == (step, 2.0)
        assert steps_in(run.config.out_dir) == [2 if step == 3 else 4]


# Retention


class Judged:
    """A rule and a history, by hypothesis."""

    args = st.builds(
        CheckpointArgs,
        keep_last=st.none() | st.integers(1, 4),
        keep_best=st.booleans(),
        keep_every=st.none() | st.integers(1, 7),
    )
    losses = st.lists(st.none() | st.floats(0, 9, allow_nan=False), min_size=1, max_size=14)


@given(args=Judged.args, losses=Judged.losses, interval=st.integers(1, 4))
def test_what_is_kept_over_a_run(args: CheckpointArgs, losses: list[float | None], interval: int) -> None:
    there: dict[int, float | None] = {}
    for number, loss in enumerate(losses, 1):
        newest = number * interval
        there[newest] = loss
        gone = expendable(there, newest, args)
        for step in gone:
            del there[step]
        every_step = range(interval, newest + 1, interval)
        measured = {s: losses[s // interval - 1] for s in every_step}
        best = (
            min((value, s) for s, value in measured.items() if value is not None)[1:]
            if any(value is not None for value in measured.values())
            else ()
        )
        expected = set(every_step)
        if args.keep_last is not None:
            expected = set(every_step[-args.keep_last :])
            expected |= {s for s in every_step if args.keep_every and s % args.keep_every == 0}
            expected |= set(best) if args.keep_best else set()
        assert set(there) == expected
        assert newest in there


@given(
    args=Judged.args,
    saved=st.dictionaries(st.integers(1, 30), st.none() | st.floats(0, 9)),
    newest=st.integers(1, 30),
)
def test_later_steps_of_another_branch_are_not_judged(
    args: CheckpointArgs, saved: dict[int, float | None], newest: int
) -> None:
    gone = expendable(saved, newest, args)
    assert gone <= set(saved) and all(step < newest for step in gone)
    assert gone == expendable({s: v for s, v in saved.items() if s <= newest}, newest, args)


def tiny(step: int, val_loss: float | None = None) -> checkpoint.Contents:
    return checkpoint.Contents(step, {"w": torch.ones(3)}, {}, {"n_layer": 1}, {"seed": 1}, None, val_loss)


def test_only_own_checkpoints_are_removed(make_config: MakeConfig, tmp_path: Path) -> None:
    """Not `final`, not the one resumed from, not damaged ones, not LitGPT's, not another name or a note."""
    out_dir = tmp_path / "out"
    for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0), (4, None), (5, 2.0)):
        checkpoint.save(checkpoint.step_folder(out_dir, step), tiny(step, loss))
    checkpoint.save(out_dir / "final", tiny(1))
    checkpoint.save(out_dir / "step-best", tiny(1))
    damaged = checkpoint.step_folder(out_dir, 4)
    (damaged / "lit_model.pth").write_bytes(b"short")
    litgpt = out_dir / "step-00000003-litgpt"
    (checkpoint.step_folder(out_dir, 3)).rename(litgpt)
    (litgpt / "manifest.json").unlink()
    (checkpoint.step_folder(out_dir, 1) / "note.txt").write_text("mine")
    before = {path.name for path in out_dir.iterdir()}
    with running(make_config("--checkpoint.keep_last=1")) as run:
        run.state.step = 6
        advance(run, 0)
        with writer_of(run, resumed_from=checkpoint.step_folder(out_dir, 5)) as writer:
            writer.save(run, step_folder(run), val_loss=1.5)
    assert {path.name for path in out_dir.iterdir()} - before == {"step-00000006"}
    # of 1 only the note is left; 2 is the best, 5 was resumed from, 6 is new
    assert before - {path.name for path in out_dir.iterdir()} == set()
    assert [path.name for path in checkpoint.step_folder(out_dir, 1).iterdir()] == ["note.txt"]
    assert [saved.step for saved in checkpoint.step_checkpoints(out_dir)] == [2, 5, 6]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=Judged.args, n=st.integers(0, 9), first=st.integers(0, 6), interval=st.integers(1, 3))
def test_the_number_of_checkpoints_is_foretold(
    args: CheckpointArgs, n: int, first: int, interval: int, small_run: Run
) -> None:
    run = small_run
    run.config.checkpoint, run.config.train.save_interval = args, interval
    last, run.state.step = run.horizon.steps, first
    foretold = checkpoints_to_come(run)
    there: dict[int, float | None] = {}
    most = 0
    for step in range(first + 1, last + 1):
        if step % interval == 0:
            there[step] = float((step * 7 + n) % 5)
            most = max(most, len(there))
            there = {s: v for s, v in there.items() if s not in expendable(there, step, args)}
    most = max(most, len(there) + (last % interval != 0))
    assert most <= foretold <= most + 2 + len(range(0, last + 1, args.keep_every or last + 1))


@pytest.fixture
def small_run(make_config: MakeConfig) -> Iterator[Run]:
    with running(make_config("--max-steps=20")) as run:
        yield run


# Continuing with other settings


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(((a[n] - b[n]).norm() / b[n].norm().clamp_min(1e-12)).item() for n in b)


def samples_of(run: Run, steps: int) -> list[torch.Tensor]:
    """The windows of the next global batches, (samples, T), and the run trained on them."""
    seen = []
    for _ in range(steps):
        batches = [next(run.data())[0] for _ in range(run.accumulation)]
        seen.append(torch.cat(batches))
        run.restart_data()
        advance(run)
    return seen


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("micro", [1, 2, 8])
def test_another_micro_batch_and_other_readers_go_on_with_the_same_samples(
    make_config: MakeConfig, tmp_path: Path, micro: int, workers: int
) -> None:
    with running(make_config(out_dir=str(tmp_path / "one"))) as run, writer_of(run) as writer:
        advance(run, 4)
        writer.save(run, step_folder(run))
        writer.wait()
        folder, expected = step_folder(run), samples_of(run, 6)
        weights = {name: value.clone() for name, value in run.gpt.state_dict().items()}
    words = [f"--train.micro_batch_size={micro}", f"--data.init_args.num_workers={workers}"]
    with running(make_config(*words, out_dir=str(tmp_path / "other"))) as run:
        resume.load(run, folder)
        for own, theirs in zip(samples_of(run, 6), expected, strict=True):
            assert torch.equal(own, theirs)
        assert distance(run.gpt.state_dict(), weights) < 2e-4


def test_changed_settings_are_said_once_and_carried_on(make_config: MakeConfig, tmp_path: Path) -> None:
    said: list[str] = []

    def resumed(folder: Path | None, name: str, *words: str) -> Path:
        with running(make_config(*words, out_dir=str(tmp_path / name))) as run:
            changes = resume.load(run, folder, said.append) if folder else []
            with writer_of(run, resumed_from=folder, changes=changes) as writer:
                advance(run, 2)
                writer.save(run, step_folder(run))
            return step_folder(run)

    first = resumed(None, "a", "--train.max_steps=10")
    same_again = resumed(first, "b", "--train.max_steps=10")
    assert not said and checkpoint.load_trainer(same_again)["changes"] == []
    second = resumed(same_again, "c", "--train.max_steps=20", "--train.log_interval=5")
    assert said == ["continues with changed settings: train.log_interval 1 -> 5, train.max_steps 10 -> 20"]
    third = resumed(second, "d", "--train.max_steps=20", "--optimizer.init_args.weight_decay=0.5")
    assert said[1:] == [
        "continues with changed settings: train.log_interval 5 -> 1, "
        "optimizer.init_args.weight_decay null -> 0.5"
    ]
    trainer = checkpoint.load_trainer(third)
    assert trainer["changes"] == [
        {"step": 4, "setting": "train.log_interval", "old": 1, "new": 5},
        {"step": 4, "setting": "train.max_steps", "old": 10, "new": 20},
        {"step": 6, "setting": "train.log_interval", "old": 5, "new": 1},
        {"step": 6, "setting": "optimizer.init_args.weight_decay", "old": None, "new": 0.5},
    ]
    # what was said has happened, and only that: vectors still have no decay
    assert [group["weight_decay"] for group in trainer["optimizer"]["param_groups"]] == [0.5, 0.0]


# The disk


def mount(folder: Path, megabytes: float) -> None:
    """A real file system of a few megabytes, where the machine lets us have one."""
    folder.mkdir()
    options = f"size={int(megabytes * 1024)}k"
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("needs root on Linux to mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", options, "litmoe-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[float], Path]]:
    mounted: list[Path] = []

    def make(megabytes: float) -> Path:
        folder = tmp_path / "disk"
        mount(folder, megabytes)
        mounted.append(folder)
        return folder

    yield make
    gc.collect()  # an exception that has been shown may still hold a file open
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("asynchronous", ["true", "false"])
@pytest.mark.parametrize("found_out", ["before", "while writing"])
def test_a_full_disk_stops_or_is_trained_on_over(
    make_config: MakeConfig,
    small_disk: Callable[[float], Path],
    monkeypatch: pytest.MonkeyPatch,
    asynchronous: str,
    found_out: str,
) -> None:
    disk = small_disk(4)
    if found_out == "while writing":  # another program takes the space right after we looked
        monkeypatch.setattr("litmoe.checkpoint.writing.free_bytes", lambda _: None)
    words = [f"--checkpoint.asynchronous={asynchronous}", "--checkpoint.on_full_disk=continue"]
    said: list[str] = []
    with running(make_config(*words, out_dir=str(disk / "out"))) as run:
        with writer_of(run, said.append) as writer:
            for _ in range(8):
                advance(run)
                writer.save(run, step_folder(run))
            writer.wait()
            kept = steps_in(disk / "out")
            assert kept == list(range(1, len(kept) + 1)) and 2 <= len(kept) < 8
            without = [line for line in said if "goes on without this checkpoint" in line]
            assert len(without) == 8 - len(kept)
            assert all("\n" not in line and "not written" in line and "free" in line for line in without)
            assert not list((disk / "out").glob(".*"))
            with pytest.raises(DiskFullError):  # there is no later one to come
                writer.save_final(run)
            assert steps_in(disk / "out") == kept
            writer.args.on_full_disk = "stop"
            with pytest.raises(DiskFullError, match="not written"):
                writer.save(run, step_folder(run))
                writer.wait()
            checkpoint.remove(checkpoint.step_folder(disk / "out", 1))
            writer.save(run, step_folder(run))  # space again: all is well
            writer.wait()
            assert run.state.step in steps_in(disk / "out")
        expected = len(kept)
        assert len(steps_in(disk / "out")) == expected


def test_retention_lets_a_run_live_on_a_small_disk(
    make_config: MakeConfig, small_disk: Callable[[float], Path]
) -> None:
    disk = small_disk(4)
    with running(make_config("--checkpoint.keep_last=1", out_dir=str(disk / "out"))) as run:
        warned: list[str] = []
        warn_if_disk_small(run, warned.append)
        with writer_of(run) as writer:
            for _ in range(8):
                advance(run)
                writer.save(run, step_folder(run))
            writer.wait()
            assert steps_in(disk / "out") == [8]
        assert not warned
        run.config.checkpoint.keep_last = None
        run.config.train.save_interval, run.state.step = 1, 0
        warn_if_disk_small(run, warned.append)
        assert len(warned) == 1
        assert "MB free" in warned[0] and "6 of" in warned[0] and "\n" not in warned[0]


def test_no_free_space_is_refused_before_anything_is_written(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("litmoe.checkpoint.writing.free_bytes", lambda _: 1000)
    with pytest.raises(DiskFullError, match=r"needs 3\d\.\d kB and the disk has 1 kB free"):
        checkpoint.save(tmp_path / "out" / "final", tiny(1))
    assert not (tmp_path / "out").exists()


# A kill at any instant

CHILD = """
import os, sys
sys.path[:0] = [{here!r}, {tests!r}]
from test_saving import advance, step_folder, running, writer_of
from litmoe.config.load import load_train_config

def train():
    config = load_train_config({config!r})
    with running(config) as run, writer_of(run, lambda line: print(line, flush=True)) as writer:
        while True:
            advance(run)
            print("step", run.state.step, flush=True)
            writer.poll()
            if run.state.step % config.train.save_interval == 0:
                writer.save(run, step_folder(run))

while sys.stdin.readline():
    child = os.fork()  # the imports above take seconds
    if child == 0:
        train()
    print("child", child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="starting Python ten times takes minutes")
def test_a_killed_run_has_whole_checkpoints_and_loses_no_more_than_it_may(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    interval = 3
    config = make_config("--checkpoint.keep_last=2", "--checkpoint.keep_every=12")
    config.train.save_interval = interval
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_plain(config)))
    code = CHILD.format(
        here=str(Path(__file__).parent),
        tests=str(Path(__file__).parents[1]),
        config=str(tmp_path / "config.yaml"),
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", code], **pipes)  # type: ignore[call-overload]
    chance = random.Random(0)

    def lines_until(start: str) -> list[str]:
        lines = [parent.stdout.readline().strip()]
        while not lines[-1].startswith(start):
            assert lines[-1], "the child has ended by itself"
            lines.append(parent.stdout.readline().strip())
        return lines

    try:
        for _ in range(10):
            for folder in config.out_dir.glob("step-*"):
                checkpoint.remove(folder)
            parent.stdin.write("go\n")
            parent.stdin.flush()
            lines = lines_until("child")
            child = int(lines[-1].split()[1])
            lines += lines_until("saved")
            time.sleep(chance.uniform(0, 0.4))
            os.kill(child, signal.SIGKILL)
            lines += lines_until("dead")

            steps = [int(line.split()[1]) for line in lines if line.startswith("step ")]
            announced = [int(line[-8:]) for line in lines if line.startswith("saved")]
            valid = steps_in(config.out_dir)  # raises if what has a final name is not whole
            checkpoint.clean(config.out_dir)
            assert steps_in(config.out_dir)[-1] >= valid[-1] >= announced[-1]
            # one interval, and one more where the next checkpoint was being written all that time
            assert steps[-1] - valid[-1] <= 2 * interval
            assert {path.name[:5] for path in config.out_dir.iterdir()} == {"step-"}
            newest = checkpoint.step_folder(config.out_dir, steps_in(config.out_dir)[-1])
            assert checkpoint.newest(config.out_dir, pytest.fail) == newest
    finally:
        parent.stdin.close()
        parent.wait(timeout=30)
