"""``litmoe verify-resume``: the proof, for a configuration of one's own, that a killed run loses nothing.

The configuration is trained twice, for a few steps, in folders of their own: once without interruption, and once
in a process that is killed at random instants (SIGKILL; TerminateProcess on Windows) and resumed until it is
complete. Final weights, optimizer, random-number states and metrics must then be equal to the bit.

Instants are uniform in the time in which the run trains and saves, so that they fall into a step or into a save as
often as those take time.
"""

import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litmoe.config import LogArgs, TrainConfig, as_plain
from litmoe.config.dialect import to_yaml
from litmoe.errors import LitMoEError
from litmoe.messages import Say, silent

PATIENCE_SECONDS = 1800.0
"""A run that writes neither metrics nor any line for this long hangs. Tokenizing shows its progress in lines."""

_POLL_SECONDS = 0.005
_CLOCK_WORDS = ("time", "second", "mfu", "memory")
"""Figures with one of these in their name depend on the clock or the machine's load."""


@dataclass(frozen=True)
class Kill:
    """Where a run was when it was killed."""

    step: int
    """The last step in its metrics."""
    saving: bool
    """Whether it was writing a checkpoint."""
    started_at: int = 0
    """The step that it had begun or resumed at."""

    def in_step(self, steps: int) -> bool:
        """Whether it is certain that one of so many steps was running: some were done, and more were to come."""
        return not self.saving and self.started_at < self.step < steps


@dataclass(frozen=True)
class Verification:
    """The outcome of a proof."""

    steps: int
    kills: list[Kill] = field(default_factory=list)
    difference: str | None = None
    """The first difference between the killed run and the uninterrupted one; None: identical."""

    @property
    def in_steps(self) -> int:
        """How many kills certainly hit a running step."""
        return sum(kill.in_step(self.steps) for kill in self.kills)

    def verdict(self) -> list[str]:
        """What was proved, and what was not, one line each."""
        if self.difference is not None:
            return [f"different: {self.difference}"]
        saving = sum(kill.saving for kill in self.kills)
        lines = [
            f"identical: weights, optimizer, random numbers and metrics of {self.steps} steps with "
            f"{len(self.kills)} kills ({self.in_steps} of them in a running step, {saving} while it saved) equal "
            "those without"
        ]
        if not self.in_steps:
            lines.append(
                "no kill hit a running step, so this proves nothing of those: raise --steps or --kills"
            )
        return lines


def verify_resume(config: TrainConfig, steps: int, kills: int, seed: int, say: Say = silent) -> Verification:
    """Train a configuration uninterrupted and with kills, and compare.

    Both runs live in a temporary folder beside ``config.out_dir`` (else in the system's), which is removed.

    Args:
        config: the configuration; what it says of length, saving, logger and sample texts is set aside.
        steps: steps to train, at least 2.
        kills: how often to kill, at least 1. Fewer happen where the run is complete before its last kill.
        seed: of the instants.
        say: gets a line per event.

    Raises:
        LitMoEError: numbers out of range, or a run that fails or hangs by itself.
    """
    if steps < 2 or kills < 1:
        raise LitMoEError(f"--steps must be 2 or more and --kills 1 or more, got {steps} and {kills}")
    instants = random.Random(seed)
    with _temporary_folder(config.out_dir) as folder:
        whole, killed = (_Run(_short(config, steps, kills, folder / name)) for name in ("whole", "killed"))
        say(f"trains {steps} steps without interruption")
        seconds = whole.train_to_the_end()
        say(
            f"trained and saved for {seconds:.1f} s; now with {kills} kills, a checkpoint every {whole.interval}"
        )
        done: list[Kill] = []
        for number in range(kills):
            newest = killed.newest_step()
            left = seconds * (steps - newest) / steps
            kill = killed.train_and_kill(instants.uniform(0, 2 * left / (kills - number + 1)), newest)
            if kill is None:
                say("the run was complete before its next kill")
                break
            done.append(kill)
            say(f"kill {len(done)}: after step {kill.step}" + (", while it saved" if kill.saving else ""))
        killed.train_to_the_end()
        result = Verification(steps, done, first_difference(whole.out_dir, killed.out_dir))
        for line in result.verdict():
            say(line)
        if result.difference is not None:
            again = _Run(_short(config, steps, kills, folder / "again"))
            again.train_to_the_end()
            if (noise := first_difference(whole.out_dir, again.out_dir)) is not None:
                say(
                    f"but two uninterrupted runs differ as well ({noise}): this configuration does not repeat "
                    "to the bit on this device, with or without kills"
                )
    return result


def first_difference(whole: Path, killed: Path) -> str | None:
    """The first thing in which two runs' ends differ, in words; None: nothing, to the bit.

    Args:
        whole: the output folder of a finished run.
        killed: the output folder of another.

    Raises:
        LitMoEError: a final checkpoint is missing or damaged.
    """
    from litmoe import checkpoint

    for out_dir in (whole, killed):
        checkpoint.verify(out_dir / "final")
    weights = [checkpoint.load_model(out_dir / "final") for out_dir in (whole, killed)]
    if found := _different(dict(weights[0]), dict(weights[1]), "weights"):
        return found
    states = [checkpoint.load_trainer(out_dir / "final") for out_dir in (whole, killed)]
    for state in states:
        state["state"] = _without_clock(state["state"])
    for part in ("optimizer", "state", "rng"):
        if found := _different(states[0][part], states[1][part], part):
            return found
    return _different(_metrics(whole), _metrics(killed), "metrics")


def _short(config: TrainConfig, steps: int, kills: int, out_dir: Path) -> TrainConfig:
    """The configuration as it is, but for where it writes, how long it trains and how often it saves."""
    config = copy.deepcopy(config)
    config.out_dir, config.resume = out_dir, "auto"
    train = config.train
    train.max_steps, train.max_tokens, train.epochs, train.max_time = steps, None, None, None
    train.save_interval = min(train.save_interval or steps, max(1, steps // (2 * kills)))
    # Validation, its best loss and the sample texts must happen if they are to be a part of the proof.
    config.eval.interval = min(config.eval.interval, max(1, steps // 4))
    if config.sample.interval is not None:
        config.sample.interval = min(config.sample.interval, max(1, steps // 4))
    config.sample.final = 0
    config.checkpoint.keep_last = 2  # so many checkpoints of a large model need not fit on the disk
    config.logger_name, config.log, config.progress = "csv", LogArgs(), False  # nothing is sent anywhere
    config.report = False
    return config


class _Run:
    """A run in processes of its own, as a person would start and kill it."""

    def __init__(self, config: TrainConfig) -> None:
        self.out_dir = config.out_dir
        self.interval = config.train.save_interval
        self.settings = config.out_dir.with_suffix(".yaml")
        self.log = config.out_dir.with_suffix(".log")
        self.settings.write_text(to_yaml(as_plain(config)), encoding="utf-8")

    def train_to_the_end(self) -> float:
        """Train until the run is complete; returns the seconds from its first step to its end.

        Raises:
            LitMoEError: it fails or hangs.
        """
        with self._process() as process:
            self._wait(process, self._begins())
            began = time.monotonic()
            self._wait(process)
            self._refuse_failure(process)
            return time.monotonic() - began

    def train_and_kill(self, seconds: float, started_at: int) -> Kill | None:
        """Start or resume the run, and kill it so many seconds after it began; None: it ended before.

        Args:
            seconds: after its first step began.
            started_at: the step that it resumes at.

        Raises:
            LitMoEError: it fails or hangs.
        """
        with self._process() as process:
            self._wait(process, self._begins())
            instant = time.monotonic() + seconds
            self._wait(process, lambda: time.monotonic() >= instant)
            if process.poll() is not None:
                self._refuse_failure(process)
                return None
            _kill(process)
            saving = any(path.name.startswith(".") and path.is_dir() for path in self.out_dir.iterdir())
            rows = _metrics(self.out_dir)
            return Kill(int(rows[-1]["step"]) if rows else 0, saving, started_at)

    def newest_step(self) -> int:
        """The step that the run will resume from."""
        from litmoe import checkpoint

        newest = checkpoint.newest(self.out_dir, say=lambda _: None) if self.out_dir.is_dir() else None
        return int(checkpoint.verify(newest, contents=False)["step"]) if newest is not None else 0

    @contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        """A training process, which is gone when the block is left, whatever happens."""
        words = [sys.executable, "-m", "litmoe", "train", "--config", str(self.settings)]
        with self.log.open("wb") as log:
            # A group of its own: with several devices the run has several processes, which all must go.
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=os.name != "nt",
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                _kill(process)

    def _begins(self) -> Callable[[], bool]:
        """Whether training has begun since now: the run then opens its metrics, and rewrites them."""
        before = _stamp(self.out_dir / "metrics.csv")
        return lambda: _stamp(self.out_dir / "metrics.csv") != before

    def _wait(self, process: subprocess.Popen[bytes], enough: Callable[[], bool] = lambda: False) -> None:
        """Wait until the process has ended, or it is enough.

        Raises:
            LitMoEError: it shows no sign of life.
        """
        signs, seen = None, time.monotonic()
        while process.poll() is None and not enough():
            time.sleep(_POLL_SECONDS)
            if (now := (_stamp(self.log), _stamp(self.out_dir / "metrics.csv"))) != signs:
                signs, seen = now, time.monotonic()
            elif time.monotonic() - seen > PATIENCE_SECONDS:
                raise LitMoEError(
                    f"the run has shown no sign of life for {PATIENCE_SECONDS / 60:.0f} minutes; its last line "
                    f"was: {self._last_line()}"
                )

    def _refuse_failure(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode:
            raise LitMoEError(f"the run ended with code {process.returncode}: {self._last_line()}")

    def _last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("litmoe train: ") if lines else "(it wrote nothing)"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process at once, without a chance to clean up, and what it has started with it."""
    if sys.platform == "win32":
        process.kill()
    else:
        # the process is not yet waited for: its number is still its own
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@contextmanager
def _temporary_folder(out_dir: Path) -> Iterator[Path]:
    """On the disk that the run itself would write to, where that is possible already."""
    beside = out_dir.absolute().parent
    where = beside if beside.is_dir() and os.access(beside, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix=".verify-resume-", dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _metrics(out_dir: Path) -> list[dict[str, str]]:
    """The whole rows of a run's metrics, without the columns that depend on the clock."""
    from litmoe.training.recording.metrics_file import METRICS_FILE, read_metrics

    path = out_dir / METRICS_FILE
    return [_without_clock(row) for row in read_metrics(path)] if path.is_file() else []


def _without_clock(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in figures.items() if not any(word in str(name) for word in _CLOCK_WORDS)
    }


def _different(a: Any, b: Any, where: str) -> str | None:
    """The first difference between two nested values, in words."""
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{where}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
        # As bytes: NaN equals itself, and -0.0 is not 0.0.
        if torch.equal(*(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))):
            return None
        at = int((a != b).reshape(-1).nonzero()[0]) if bool((a != b).any()) else 0
        values = a.reshape(-1)[at].item(), b.reshape(-1)[at].item()
        unequal = f"{int((a != b).sum())} of {a.numel()} numbers"
        return f"{where}: {unequal}, the first at {at}: {values[0]} and {values[1]}"
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{where}: {sorted(map(str, a.keys() ^ b.keys()))[0]} is only in one of them"
        items = ((f"{where}, {key}", a[key], b[key]) for key in a)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} entries"
        items = ((f"{where}, {number}", x, y) for number, (x, y) in enumerate(zip(a, b, strict=True)))
    else:
        return None if a == b or (a != a and b != b) else f"{where}: {a} and {b}"
    return next((found for name, x, y in items if (found := _different(x, y, name))), None)
