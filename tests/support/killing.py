"""Kills training processes at random instants, resumes them, and checks what must hold each time.

Used by ``tests/integration/test_crash.py`` and, with more kills, by ``benchmarks/kill_resume.py``.
"""

import csv
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import yaml

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.errors import LitMoEError

WAIT_SECONDS = 240  # generous, for what takes seconds: the machine may be busy

_TRAIN = """
import os, sys
import tokenizers, torch.optim, torch._dynamo, lightning.pytorch
from litmoe.config.load import load_train_config
from litmoe.training.loop import train

def run(config, settings):
    log = os.open(settings + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    train(config)
    sys.exit()
"""
# Importing torch and Lightning takes up to half a minute where all extras are installed. On Linux, one process
# imports everything once and forks for every start.
_FORKING = (
    _TRAIN
    + """
print("ready", flush=True)
for line in sys.stdin:
    settings = line.strip()
    config = load_train_config(settings)
    pid = os.fork()
    if pid == 0:
        run(config, settings)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
)


class Trainer:
    """Starts training processes, one at a time. Leaving the block kills the one still running."""

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._forks = sys.platform == "linux"
        self._server: subprocess.Popen[str] | None = None
        self._plain: subprocess.Popen[str] | None = None
        self._pid = 0
        self._code: int | None = None
        self._ended = threading.Event()

    def __enter__(self) -> "Trainer":
        if self._forks:
            self._server = subprocess.Popen(
                [self._python, "-c", _FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self._server.stdout is not None and self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()
        if self._server is not None:
            self._server.kill()
            self._server.wait(timeout=WAIT_SECONDS)

    def start(self, settings: Path) -> None:
        """Train in a new process; its output is appended to ``<settings>.log``."""
        self._ended.clear()
        self._code = None
        if self._server is None:
            code = f"{_TRAIN}\nrun(load_train_config({str(settings)!r}), {str(settings)!r})"
            self._plain = subprocess.Popen([self._python, "-c", code], text=True)
        else:
            assert self._server.stdin is not None and self._server.stdout is not None
            self._server.stdin.write(f"{settings}\n")
            self._server.stdin.flush()
            self._pid = int(self._server.stdout.readline())
        threading.Thread(target=self._watch, daemon=True).start()

    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended.is_set()

    def kill(self) -> None:
        """Kill the process: SIGKILL, or TerminateProcess on Windows."""
        if (self._server is None and self._plain is None) or (self._server is not None and not self._pid):
            return
        if self.running():
            if self._plain is not None:
                self._plain.kill()
            else:
                os.kill(self._pid, 9)
        self.wait()

    def wait(self) -> int:
        """Wait for the process to end; its exit code."""
        assert self._ended.wait(WAIT_SECONDS), "the training process hangs"
        assert self._code is not None
        return self._code

    def _watch(self) -> None:
        if self._plain is not None:
            self._code = self._plain.wait()
        else:
            assert self._server is not None and self._server.stdout is not None
            line = self._server.stdout.readline()  # empty once the server is gone
            self._code = int(line) if line.strip() else -9
        self._ended.set()


class Watcher(threading.Thread):
    """Reads a run's folder in a loop: nothing under a final name may be partial."""

    def __init__(self, out_dir: Path) -> None:
        super().__init__(daemon=True)
        self.out_dir = out_dir
        self.looks = 0
        self.violations: list[str] = []
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.01):
            for folder in final_names(self.out_dir):
                self.looks += 1
                if fault := self._fault(folder):
                    self.violations.append(fault)

    def stop(self) -> None:
        self._stop_asked.set()
        self.join(timeout=WAIT_SECONDS)

    @staticmethod
    def _fault(folder: Path) -> str | None:
        """What is wrong with a checkpoint, or None. Looks five times: it may be replaced while it is read."""
        fault = None
        for _ in range(5):
            if not (folder / checkpoint.MANIFEST).is_file():
                return None  # being replaced or removed: the manifest goes first, so this is no checkpoint
            try:
                checkpoint.verify(folder)
                return None
            except LitMoEError as error:
                fault = str(error)
            time.sleep(0.002)
        return fault


@dataclass
class Killed:
    """One kill, and the state of the run after it."""

    instant: float
    """Seconds after the run started or resumed training."""
    step: int
    """The last logged step."""
    saved: int
    """The step of the newest valid checkpoint."""
    saving: bool
    """Whether a checkpoint was being written."""


@dataclass
class Ordeal:
    """The result of a run with many kills."""

    kills: list[Killed] = field(default_factory=list)
    seconds: float = 0.0
    looks: int = 0
    """How many checkpoints the watcher verified."""


def train_with_kills(
    trainer: Trainer,
    make: Callable[[int], TrainConfig],
    settings: Path,
    steps: int,
    seconds: float,
    kills: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
    aim_at_saves: bool = False,
) -> Ordeal:
    """Kill a run at random instants, check and resume it each time, and finally let it finish.

    Args:
        trainer: starts the processes.
        make: the configuration of start number n; all with the same output folder and ``resume: auto``.
        settings: where to write that configuration.
        steps: of the whole run.
        seconds: that the whole run takes, training and saving.
        kills: how many; after these the run is left to finish.
        seed: of the instants.
        say: told one line per kill.
        aim_at_saves: every second kill waits until a checkpoint is being written.

    Raises:
        AssertionError: something was lost, or partial.
    """
    instants, ordeal, saved = random.Random(seed), Ordeal(), 0
    began_all = time.monotonic()
    out_dir = make(0).out_dir
    watcher = Watcher(out_dir)
    watcher.start()
    while len(ordeal.kills) < kills:
        config = make(len(ordeal.kills))
        _start(trainer, config, settings)
        left = seconds * (steps - saved) / steps
        # Uniform over a share of the remaining time, so that the kills spread over the whole run.
        instant = instants.uniform(0, 2 * left / (kills - len(ordeal.kills) + 1))
        began = time.monotonic()
        _until(trainer, partial(_is_past, began + instant))
        if aim_at_saves and len(ordeal.kills) % 2:
            _until(trainer, lambda: is_saving(out_dir))
        if not trainer.running():
            assert trainer.wait() == 0, _log(settings)
            break  # finished before the next kill: the machine is faster than it was
        trainer.kill()
        killed = Killed(time.monotonic() - began, last_step(out_dir), 0, is_saving(out_dir))
        saved = killed.saved = check_after_kill(out_dir, config, saved)
        ordeal.kills.append(killed)
        say(
            f"kill {len(ordeal.kills):>3} {killed.instant:6.2f} s after the start, at step {killed.step:>5} "
            f"{'in a save' if killed.saving else '         '}  resumes from step {killed.saved}"
        )
    _start(trainer, make(len(ordeal.kills)), settings)
    assert trainer.wait() == 0, _log(settings)
    watcher.stop()
    assert not watcher.violations, watcher.violations[0]
    ordeal.looks, ordeal.seconds = watcher.looks, time.monotonic() - began_all
    return ordeal


def check_after_kill(out_dir: Path, config: TrainConfig, saved_before: int) -> int:
    """Check what must hold in the folder of a killed run; the step that it will resume from."""
    for folder in final_names(out_dir):
        if (folder / checkpoint.MANIFEST).is_file():
            checkpoint.verify(folder)
        else:  # the kill interrupted its removal; a save never leaves this
            assert config.checkpoint.keep_last is not None, f"{folder} is partial"
    said: list[str] = []
    newest = checkpoint.newest(out_dir, said.append) if out_dir.is_dir() else None
    assert not said, said
    saved = int(checkpoint.verify(newest)["step"]) if newest is not None else 0
    assert saved >= saved_before, f"step {saved_before} was saved, and now {saved} is the newest"
    steps = [int(row["step"]) for row in metrics(out_dir)]
    assert steps == list(range(1, len(steps) + 1)), "a step is missing, or twice, in the metrics"
    assert len(steps) >= saved, "a checkpoint is ahead of its metrics"
    # Training goes on while a save is written in the background, up to the next save.
    interval = config.train.save_interval or 0
    allowed = 2 * interval - 1 if config.checkpoint.asynchronous else interval
    assert len(steps) - saved <= allowed, f"at step {len(steps)} the newest checkpoint is of step {saved}"
    return saved


def final_names(out_dir: Path) -> list[Path]:
    """The folders of a run that bear the name of a checkpoint."""
    if not out_dir.is_dir():
        return []
    return [path for path in out_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]


def is_saving(out_dir: Path) -> bool:
    """Whether a checkpoint is being written: its hidden folder exists."""
    try:
        return any(path.name.startswith(".") and path.is_dir() for path in out_dir.iterdir())
    except OSError:  # gone between the look and the listing
        return False


def metrics(out_dir: Path) -> list[dict[str, str]]:
    """The complete rows of a run's metrics, without columns that depend on the clock."""
    path = out_dir / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1].splitlines()  # a kill may leave half a row at the end
    clock = ("time", "second", "mfu", "memory")
    return [
        {name: value for name, value in row.items() if not any(word in name for word in clock)}
        for row in csv.DictReader(whole)
    ]


def last_step(out_dir: Path) -> int:
    """The last logged step; 0 before the first."""
    rows = metrics(out_dir)
    return int(rows[-1]["step"]) if rows else 0


def train_uninterrupted(trainer: Trainer, config: TrainConfig, settings: Path) -> float:
    """Train without kills; the seconds from the first step to the end."""
    _start(trainer, config, settings)
    began = time.monotonic()
    assert trainer.wait() == 0, _log(settings)
    return time.monotonic() - began


def _start(trainer: Trainer, config: TrainConfig, settings: Path) -> None:
    """Start a run and wait until it trains: it writes its metrics file then."""
    settings.write_text(yaml.safe_dump(as_plain(config)), encoding="utf-8")
    file = config.out_dir / "metrics.csv"
    before = _stamp(file)
    trainer.start(settings)
    _until(trainer, lambda: _stamp(file) != before)


def _is_past(instant: float) -> bool:
    return time.monotonic() >= instant


def _until(trainer: Trainer, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while trainer.running() and not reached():
        assert time.monotonic() < deadline, "the training process hangs"
        time.sleep(0.001)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        return path.stat().st_mtime_ns, path.stat().st_ino
    except OSError:
        return None


def _log(settings: Path) -> str:
    return settings.with_name(settings.name + ".log").read_text(encoding="utf-8", errors="replace")[-2000:]
