"""Bad steps, signals, memory, and two runs in one folder."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.errors import LitMoEError, RunInterrupted
from litmoe.training import loop as trainer
from litmoe.training.loop import train
from litmoe.training.out_dir import locked
from litmoe.training.recording.events import read_events

MakeConfig = Callable[..., TrainConfig]


def rows(out_dir: Path) -> list[dict[str, str]]:
    with (out_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Poison(torch.optim.AdamW):
    """An optimizer whose updates of the given steps write NaN into a weight: a fault from inside a run."""

    def __init__(self, params: object, lr: float = 1e-3, at: int = -1) -> None:
        super().__init__(params, lr=lr)  # type: ignore[arg-type]
        self.at, self.steps = at, 0

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        super().step()
        self.steps += 1
        if self.steps == self.at:
            self.param_groups[0]["params"][0].data.view(-1)[0] = float("nan")


@pytest.fixture
def poisoned(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    monkeypatch.setitem(sys.modules, "poison", sys.modules[__name__])

    def make(*words: str, at: int, **settings: object) -> TrainConfig:
        poison = {"class_path": "poison.Poison", "init_args": {"lr": 0.003, "at": at}}
        return make_config(*words, optimizer=poison, **settings)

    return make


def test_rollback_goes_back_and_leaves_out_the_data(poisoned: MakeConfig, tmp_path: Path) -> None:
    words = ["--faults.on_non_finite=rollback", "--faults.non_finite_limit=2", "--max-steps=8"]
    result = train(poisoned(*words, at=5))
    final = checkpoint.load_trainer(result.checkpoint)["state"]
    assert result.steps == 8
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.load_model(result.checkpoint).values())
    # Weights went bad after step 5; steps 6 and 7 were left out; the run went back to the checkpoint of step 4.
    assert (final["skipped_steps"], final["rollbacks"], final["rolled_back_to"]) == (2, 1, 4)
    assert final["samples"] == (7 + 4) * 8  # seven steps of data before, four after
    steps = [int(row["step"]) for row in rows(tmp_path / "out")]
    assert steps == list(range(1, 9))
    assert [row["rollbacks"] for row in rows(tmp_path / "out")] == ["0"] * 4 + ["1"] * 4


def test_skip_counts_and_gives_up_after_the_limit(poisoned: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="3 steps in a row"):
        train(poisoned("--faults.on_non_finite=skip", "--max-steps=20", at=3))
    logged = [(row["step"], row["skipped_steps"]) for row in rows(tmp_path / "out")]
    assert logged == [("1", "0"), ("2", "0"), ("3", "0"), ("4", "1"), ("5", "2")]


def test_stop_leaves_the_last_checkpoint_whole(poisoned: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="step 6: the loss is nan: resume from the last checkpoint"):
        train(poisoned("--max-steps=20", at=5))
    newest = checkpoint.newest(tmp_path / "out", print)
    assert newest is not None and newest.name == "step-00000004"


def test_a_rollback_without_progress_stops(poisoned: MakeConfig) -> None:
    """A fault that comes again and again from the same place ends the run, and not in a circle."""

    class Always(Poison):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            super().step()
            if self.steps >= 5:
                self.param_groups[0]["params"][0].data.view(-1)[0] = float("nan")

    sys.modules["poison"].Always = Always  # type: ignore[attr-defined]
    config = poisoned("--faults.on_non_finite=rollback", "--max-steps=30", at=-1)
    config.optimizer.class_path = "poison.Always"
    with pytest.raises(LitMoEError, match="again after rolling back"):
        train(config)


def test_a_spike_is_left_out(poisoned: MakeConfig, tmp_path: Path) -> None:
    """The update of step 55 spoils the weights: all losses from then on are far above those before."""

    class Kick(Poison):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            super().step()
            if self.steps == 55:
                for parameter in self.param_groups[0]["params"]:
                    parameter.data.mul_(-4)

    sys.modules["poison"].Kick = Kick  # type: ignore[attr-defined]
    words = ["--faults.spike_factor=1.3", "--faults.on_non_finite=skip", "--max-steps=60"]
    config = poisoned(*words, "--faults.non_finite_limit=2", "--train.save_interval=null", at=-1)
    config.optimizer.class_path = "poison.Kick"
    with pytest.raises(LitMoEError, match=r"step 57: the loss .* is above 1.3 times the mean"):
        train(config)
    spikes = [event for event in read_events(tmp_path / "out") if event.kind == "spike"]
    assert [(event.step, event.figures["in_a_row"]) for event in spikes] == [(56, 1), (57, 2)]


HANGUP = getattr(signal, "SIGHUP", None)


@pytest.mark.parametrize(
    ("number", "code", "times"),
    [
        (signal.SIGINT, 130, 1),
        (signal.SIGTERM, 143, 2),  # a launcher passes on what the terminal has sent already
        pytest.param(HANGUP, 129, 3, marks=pytest.mark.skipif(HANGUP is None, reason="no SIGHUP here")),
    ],
)
def test_a_signal_finishes_the_step_and_saves(
    make_config: MakeConfig, tmp_path: Path, number: signal.Signals, code: int, times: int
) -> None:
    config = make_config("--max-steps=100000", "--train.save_interval=null", "--train.min_lr=0.003")

    def send() -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.02)

    def late(*_: object) -> None:
        """Takes what comes after the run has ended."""

    timer = threading.Timer(1.5, send)
    before_test = signal.signal(number, late)
    timer.start()
    before = signal.getsignal(number)
    with pytest.raises(RunInterrupted, match="--resume auto goes on") as error:
        train(config)
    assert error.value.exit_code == code and signal.getsignal(number) is before
    timer.join()
    signal.signal(number, before_test)
    newest = checkpoint.newest(tmp_path / "out", print)
    assert newest is not None
    step = checkpoint.verify(newest)["step"]
    assert int(rows(tmp_path / "out")[-1]["step"]) == step > 0
    assert [event.kind for event in read_events(tmp_path / "out")] == ["start", "saved", "interrupted"]
    # What was saved is the run that would have been.
    go_on = make_config(f"--max-steps={step + 2}", "--resume=auto", "--train.save_interval=null", "--train.min_lr=0.003", "--schedule.name=constant")  # fmt: skip  # noqa: E501
    assert train(go_on).steps == step + 2


def test_two_runs_do_not_share_a_folder(make_config: MakeConfig, tmp_path: Path, plain_python: str) -> None:
    holder = (
        "import sys, pathlib\nfrom litmoe.training.out_dir import locked\n"
        f"with locked(pathlib.Path({str(tmp_path / 'out')!r})):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen([plain_python, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline().strip() == b"held"
    with pytest.raises(LitMoEError, match="another run is writing there"):
        train(make_config())
    child.kill()  # however it ends, the system lets go of the lock
    child.wait(timeout=30)
    assert train(make_config()).steps == 6


def test_a_folder_that_cannot_be_written_is_refused_at_once(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    started = time.perf_counter()
    with pytest.raises(LitMoEError, match="cannot be written"):
        train(make_config(out_dir=str(tmp_path / "file" / "out")))
    assert time.perf_counter() - started < 5
    with locked(tmp_path / "fine"):
        pass


HUNGRY = """
import resource, sys
from litmoe import load_train_config, train
from litmoe.training import loop as trainer
config = load_train_config(sys.argv[1])
keep = trainer.gradients
def limited(run, batches, requests):
    # All is allocated that a run holds for good: from here on the process may grow by 40 MB only.
    if run.state.step == 1 and not limited.done:
        limited.done = True
        pages = int(open("/proc/self/statm").read().split()[0])
        size = pages * resource.getpagesize() + 40_000_000
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        run.state.micro_batch_size = 256
        run.restart_data()
    return keep(run, run.data(), requests)
limited.done = False
trainer.gradients = limited
train(config, say=print)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to limit a process's memory")
def test_memory_that_runs_out_halves_the_micro_batch(
    make_config: MakeConfig, tmp_path: Path, plain_python: str
) -> None:
    config = make_config(
        "--on-oom=shrink",
        "--max-steps=3",
        "--global-batch-size=256",
        "--data.init_args.num_workers=0",
        "--checkpoint.asynchronous=false",
        "--train.save_interval=null",
    )
    (tmp_path / "hungry.yaml").write_text(yaml.safe_dump(as_plain(config)))
    done = subprocess.run(
        [plain_python, "-c", HUNGRY, str(tmp_path / "hungry.yaml")],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (
        "out of memory in step 2 with micro-batches of 256: goes on with micro-batches of 128" in done.stdout
    )
    assert trainer  # the module whose loop was given less memory
