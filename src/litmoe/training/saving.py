"""Checkpoints while a run trains: written in the background, as many kept as wanted, never over a full disk.

A save copies everything to host memory, which blocks training for as long as the copy takes, and one thread writes
it from there. At most one checkpoint is pending at any time. A run that is killed loses what it trained since its
last save or, while that is still being written, since the one before it: at most two save intervals, and one with
`checkpoint.asynchronous: false`.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from lightning.fabric import Fabric

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.distributed.collective import on_first_process
from litmoe.errors import DiskFullError, LitMoEError
from litmoe.messages import Say, readable
from litmoe.optim.state_size import state_shapes
from litmoe.training import resume
from litmoe.training.recording.events import EventLog, Figure
from litmoe.training.run import Run


@dataclass(frozen=True)
class _News:
    """What the writing thread has to tell, for the calling thread to pass on."""

    message: str
    kind: str | None = None
    """Of an event; None: a line only."""
    step: int | None = None
    figures: dict[str, Figure] = field(default_factory=dict)


class CheckpointWriter:
    """Saves a run, by the ``checkpoint`` section of its configuration.

    Of several processes only the first writes, but all of them call `save`, `save_final` and `wait`, and share the
    outcome. Leaving the context waits until all is on the disk.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        events: EventLog | None = None,
        resumed_from: Path | None = None,
        changes: Sequence[resume.Change] = (),
    ) -> None:
        """
        Args:
            fabric: the run's.
            config: the run's.
            events: told of every checkpoint written or skipped, always on the calling thread.
            resumed_from: a checkpoint that is never removed.
            changes: made to the settings when the run was continued; the checkpoints record them.
        """
        self.fabric, self.out_dir, self.args = fabric, config.out_dir, config.checkpoint
        self.save_interval = config.train.save_interval
        self.events = events or EventLog()
        self.resumed_from, self.changes = resumed_from, list(changes)
        self._memory = checkpoint.HostMemory(pin=fabric.device.type == "cuda")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()

    @property
    def host_bytes(self) -> int:
        """Host memory that the copy of the last save takes, and keeps for the next."""
        return self._memory.n_bytes

    def save(self, run: Run, folder: Path, val_loss: float | None = None) -> None:
        """Save the run as it stands at this call; what training changes afterwards is not in the checkpoint.

        Waits for the previous save, if that is still being written.

        Args:
            run: the run.
            folder: the checkpoint's.
            val_loss: of the model as it stands; None where that was not measured.

        Raises:
            DiskFullError: there is not enough room, and the configuration says to stop.
            LitMoEError: this or the previous save could not be written.
        """
        self.wait()
        on_first_process(self.fabric, lambda: self._save(run, folder, val_loss))

    def save_final(self, run: Run, val_loss: float | None = None) -> Path:
        """Write the checkpoint ``final``, and under the name of its step too where one is due.

        A full disk stops here in any case: there is no later checkpoint to come.

        Returns:
            The folder of ``final``, which is then on the disk.

        Raises:
            LitMoEError: this or the previous save could not be written.
        """
        self.wait()
        final = self.out_dir / checkpoint.FINAL
        on_first_process(self.fabric, lambda: self._save_final(run, final, val_loss))
        return final

    def poll(self) -> None:
        """Report what has been written since the last call. Takes microseconds: call it at every step.

        Raises:
            LitMoEError: the last save could not be written. Of several processes the next `save` or `wait`
                raises it, which all of them reach together.
        """
        if self._pending is not None and self._pending.done() and self.fabric.world_size == 1:
            self._finish()
        self._tell()

    def wait(self) -> None:
        """Wait until the last save is on the disk.

        Raises:
            LitMoEError: it could not be written.
        """
        on_first_process(self.fabric, self._finish)

    def rescue(self, seconds: float) -> None:
        """Before the process is ended from outside the training loop: let the thread finish, if it can in time."""
        if self._pending is not None:
            self._pending.result(seconds)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
            else:  # the other processes may not come here
                try:
                    self._finish()
                except Exception as second:
                    self.events.say(f"and the last checkpoint failed: {second}")
        finally:
            self._thread.shutdown()
            self._memory.release()

    def _save(self, run: Run, folder: Path, val_loss: float | None) -> None:
        contents = resume.contents(run, self.changes, val_loss)
        try:
            checkpoint.require_space(folder, contents)
            if self.args.asynchronous:
                copied = self._memory.copy(contents)
                self._pending = self._thread.submit(self._write, folder, copied)
            else:
                self._write(folder, contents)
        except DiskFullError as error:
            self._skip(error)
        except MemoryError as error:
            self._memory.release()
            self._news.put(_News(f"{error}: training waits while this checkpoint is written"))
            self._write(folder, contents)
        self._tell()

    def _write(self, folder: Path, contents: checkpoint.Contents) -> None:
        """Write, and remove what need not be kept; on the thread or, synchronously, on the caller's."""
        try:
            moved = checkpoint.save(folder, contents)
        except DiskFullError as error:
            self._skip(error)
            return
        self._tell_of_moved(moved, folder)
        self._news.put(_News(f"saved {folder}", "saved", contents.step, {"val_loss": contents.val_loss}))
        self._remove_expendable(contents.step)

    def _save_final(self, run: Run, final: Path, val_loss: float | None) -> None:
        step = run.state.step
        self._memory.release()
        self._tell_of_moved(checkpoint.save(final, resume.contents(run, self.changes, val_loss)), final)
        self.events.add("saved", f"saved {final}", figures={"val_loss": val_loss}, said=False)
        if self.save_interval and step % self.save_interval == 0:
            try:
                again = checkpoint.step_folder(self.out_dir, step)
                self._tell_of_moved(checkpoint.copy(final, again), again)
            except DiskFullError as error:  # only where the file system has no hard links
                self._skip(error)
        self._remove_expendable(step)
        self._tell()

    def _tell_of_moved(self, moved: Sequence[Path], folder: Path) -> None:
        """Say where the files of others went that lay in a checkpoint which was replaced."""
        for kept in moved:
            self._news.put(_News(f"{kept}: files that lay in {folder} and were not the checkpoint's"))

    def _skip(self, error: DiskFullError) -> None:
        if self.args.on_full_disk == "stop":
            raise error
        self._news.put(_News(f"{error}; training goes on without this checkpoint", "checkpoint_skipped"))

    def _remove_expendable(self, step: int) -> None:
        saved = checkpoint.step_checkpoints(self.out_dir)
        steps = checkpoint.expendable({one.step: one.val_loss for one in saved}, step, self.args)
        for one in saved:
            if one.step in steps and not _same(one.folder, self.resumed_from):
                try:
                    checkpoint.remove(one.folder)
                except LitMoEError as error:  # no reason to stop: it is tried again after the next save
                    self._news.put(_News(str(error)))

    def _finish(self) -> None:
        """Wait for the thread, on the first process.

        Raises:
            LitMoEError: the background write failed.
        """
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        finally:
            self._tell()

    def _tell(self) -> None:
        while not self._news.empty():
            news = self._news.get()
            if news.kind is None:
                self.events.say(news.message)
            else:
                self.events.add(news.kind, news.message, step=news.step, figures=news.figures)


def checkpoints_to_come(run: Run) -> int:
    """How many more checkpoints than now the rest of the run has on the disk at most, ``final`` among them."""
    there = len(checkpoint.step_checkpoints(run.config.out_dir)) if run.config.checkpoint.keep_last else 0
    return checkpoint.count_to_come(run.config, run.state.step, run.horizon.steps, there)


def checkpoint_bytes(run: Run) -> int:
    """About the size of one checkpoint of a run, before the first step too."""
    size = checkpoint.size_in_bytes(resume.contents(run))
    return size if run.optimizer.state_dict()["state"] else size + _optimizer_bytes(run)


def host_bytes(run: Run) -> int:
    """Host memory that asynchronous saves of a run take besides the run itself; 0 for synchronous ones."""
    return checkpoint_bytes(run) if run.config.checkpoint.asynchronous else 0


def warn_if_disk_small(run: Run, say: Say) -> None:
    """Say so, in one line, when the disk has less room than the checkpoints of the whole run will need."""
    count, size = checkpoints_to_come(run), checkpoint_bytes(run)
    free = checkpoint.free_bytes(run.config.out_dir)
    if free is not None and free < count * size:
        say(
            f"the disk has {readable(free)} free, and this run's checkpoints will need {readable(count * size)} "
            f"({count} of {readable(size)}): free some, or keep fewer with --checkpoint.keep-last"
        )


def _optimizer_bytes(run: Run) -> int:
    """The size of the state that the optimizer will have."""
    return sum(t.nbytes + checkpoint.TENSOR_OVERHEAD for t in state_shapes(run.optimizer.optimizer))


def _same(folder: Path, other: Path | None) -> bool:
    return other is not None and folder.resolve() == other.resolve()
