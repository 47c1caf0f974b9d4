"""The output folder of a run: one run at a time writes it, and what it holds is never started over in silence."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.errors import CheckpointError, LitMoEError
from litmoe.files import hold_lock, reason_of
from litmoe.messages import Say, silent
from litmoe.training.recording.events import read_events
from litmoe.training.recording.metrics_file import METRICS_FILE, read_rows

_LOCK = ".lock"


@dataclass
class OutDir:
    """A run's folder, locked for it."""

    path: Path
    begun: bool = False
    """Whether the run has begun to write there. If it has not, nothing is left of it."""


@contextmanager
def locked(path: Path) -> Iterator[OutDir]:
    """Hold the folder's lock, which the system drops when the process ends, however it ends.

    The folder is made if need be; a run that is refused before it begins
    leaves neither the folder nor a lock file behind.

    Raises:
        LitMoEError: another run holds it, or the folder cannot be written.
    """
    out_dir = OutDir(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    lock = path / _LOCK
    was_there = lock.exists()
    try:
        with _held(lock):
            try:
                yield out_dir
            finally:
                if not out_dir.begun and not was_there:
                    with suppress(OSError):  # Windows removes no file that is open; see below
                        lock.unlink(missing_ok=True)
    finally:
        if not out_dir.begun:
            with suppress(OSError):  # as soon as a folder is not empty
                if not was_there:
                    lock.unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a lock file, and say what it is for if that is impossible."""

    def refuse() -> None:
        raise LitMoEError(
            f"{lock.parent}: another run is writing there: wait for it to end, or choose another --out-dir"
        )

    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(lock, refuse))
        except LitMoEError as error:
            if not isinstance(error.__cause__, OSError | NotImplementedError):
                raise
            raise LitMoEError(
                f"{lock.parent}: cannot be written ({reason_of(error.__cause__)}): choose another --out-dir"
            ) from error
        yield


def checkpoint_to_resume(config: TrainConfig, say: Say = silent) -> Path | None:
    """The checkpoint that a configuration asks to continue from; None: a new run.

    Call it with the folder locked: what a killed run left unfinished is brought in order first.

    Raises:
        CheckpointError: the one asked for is not there or damaged; or the folder holds a run that a new one would
            write over, or what is left of one that cannot be continued.
    """
    resume, out_dir = config.resume, config.out_dir
    checkpoint.clean(out_dir)
    if isinstance(resume, Path):
        checkpoint.verify(resume)
        return resume
    found = checkpoint.newest(out_dir, say)
    if found is None:
        if resume is True:
            raise CheckpointError(
                f"{out_dir}: no valid checkpoint to resume from; --resume auto starts a new run if there is none"
            )
        _refuse_to_start_over(out_dir, say)
    elif resume is False:
        raise CheckpointError(
            f"{out_dir} already holds a run ({found.name}): continue it with --resume auto, "
            "or choose another --out-dir"
        )
    return found


def _refuse_to_start_over(out_dir: Path, say: Say) -> None:
    """Refuse a new run where metrics tell of steps whose checkpoints are gone.

    A run that ended before its first checkpoint, which its events tell, has nothing to lose.
    """
    metrics = out_dir / METRICS_FILE
    if not os.path.lexists(metrics):
        return
    steps = max((int(row["step"]) for row in read_rows(metrics)), default=0)
    if steps == 0:
        return
    kinds = {event.kind for event in read_events(out_dir)}
    if "start" not in kinds or "saved" in kinds:
        raise CheckpointError(
            f"{metrics} tells of a run of {steps} steps, and {out_dir} has no checkpoint to continue it from: put "
            "the checkpoints back, or choose another --out-dir for a new run"
        )
    say(f"{out_dir}: the run there ended at step {steps}, before its first checkpoint, and is started over")
