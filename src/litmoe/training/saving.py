"""Checkpoints while a run trains: written in the background, as many kept as wanted, never over a full disk.

A save copies everything to host memory, which holds training up for as long as the copy takes, and one thread
writes it from there. At most one checkpoint is on its way at any time. A run that is killed loses what it trained
since its last save, and where that was still being written, since the one before it: at most two save intervals,
and one with `checkpoint.asynchronous: false`.
"""

import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from lightning.fabric import Fabric

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.distributed.collective import on_first_process
from litmoe.errors import DiskFullError, LitMoEError
from litmoe.messages import Say, readable, silent
from litmoe.optim.state_size import state_shapes
from litmoe.training import resume
from litmoe.training.run import Run


class CheckpointWriter:
    """Saves a run, by the ``checkpoint`` section of its configuration.

    Of several processes only the first writes, but all of them call `save`, `save_final` and `wait`, and come to
    the same outcome. Leaving the context waits until all is on the disk.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        say: Say = silent,
        resumed_from: Path | None = None,
        changes: Sequence[resume.Change] = (),
    ) -> None:
        """
        Args:
            fabric: the run's.
            config: the run's.
            say: gets a line for every checkpoint written or left out, always on the calling thread.
            resumed_from: a checkpoint that is not to be removed.
            changes: of the settings on the run's way, for the checkpoints to carry.
        """
        self.fabric, self.out_dir, self.args = fabric, config.out_dir, config.checkpoint
        self.save_interval = config.train.save_interval
        self.say, self.resumed_from, self.changes = say, resumed_from, list(changes)
        self._memory = checkpoint.HostMemory(pin=fabric.device.type == "cuda")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._on_its_way: Future[None] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    @property
    def host_bytes(self) -> int:
        """Host memory that the copy of the last save takes, and keeps for the next."""
        return self._memory.n_bytes

    def save(self, run: Run, folder: Path, val_loss: float | None = None) -> None:
        """Save the run as it stands at this call, whatever becomes of it afterwards.

        Waits for the save before, if that is still being written.

        Args:
            run: the run.
            folder: the checkpoint's.
            val_loss: of the model as it stands; None where that was not measured.

        Raises:
            DiskFullError: there is not enough room, and the configuration says to stop.
            LitMoEError: this or the save before it could not be written.
        """
        self.wait()
        on_first_process(self.fabric, lambda: self._save(run, folder, val_loss))

    def save_final(self, run: Run, val_loss: float | None = None) -> Path:
        """Write the checkpoint ``final``, and under the name of its step too where one is due.

        A full disk stops here in any case: there is no later checkpoint to come.

        Returns:
            The folder of ``final``, which is then on the disk.

        Raises:
            LitMoEError: this or the save before it could not be written.
        """
        self.wait()
        final = self.out_dir / checkpoint.FINAL
        on_first_process(self.fabric, lambda: self._save_final(run, final, val_loss))
        return final

    def poll(self) -> None:
        """Say what has been written since; takes microseconds, for every step.

        Raises:
            LitMoEError: the last save could not be written. Of several processes the next `save` or `wait`
                raises it, which all of them reach together.
        """
        if self._on_its_way is not None and self._on_its_way.done() and self.fabric.world_size == 1:
            self._finish()
        self._say_lines()

    def wait(self) -> None:
        """Wait until the last save is on the disk.

        Raises:
            LitMoEError: it could not be written.
        """
        on_first_process(self.fabric, self._finish)

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
                    self.say(f"and the last checkpoint failed: {second}")
        finally:
            self._thread.shutdown()
            self._memory.release()

    def _save(self, run: Run, folder: Path, val_loss: float | None) -> None:
        contents = resume.contents(run, self.changes, val_loss)
        try:
            checkpoint.require_space(folder, contents)
            if self.args.asynchronous:
                copied = self._memory.copy(contents)
                self._on_its_way = self._thread.submit(self._write, folder, copied)
            else:
                self._write(folder, contents)
        except DiskFullError as error:
            self._leave_out(error)
        except MemoryError as error:
            self._memory.release()
            self._lines.put(f"{error}: this checkpoint holds training up while it is written")
            self._write(folder, contents)
        self._say_lines()

    def _write(self, folder: Path, contents: checkpoint.Contents) -> None:
        """Write, and remove what need not be kept; on the thread or, synchronously, on the caller's."""
        try:
            checkpoint.save(folder, contents)
        except DiskFullError as error:
            self._leave_out(error)
            return
        self._lines.put(f"saved {folder}")
        self._remove_expendable(contents.step)

    def _save_final(self, run: Run, final: Path, val_loss: float | None) -> None:
        step = run.state.step
        self._memory.release()
        checkpoint.save(final, resume.contents(run, self.changes, val_loss))
        if self.save_interval and step % self.save_interval == 0:
            try:
                checkpoint.copy(final, checkpoint.step_folder(self.out_dir, step))
            except DiskFullError as error:  # only where the file system has no hard links
                self._leave_out(error)
        self._remove_expendable(step)
        self._say_lines()

    def _leave_out(self, error: DiskFullError) -> None:
        if self.args.on_full_disk == "stop":
            raise error
        self._lines.put(f"{error}; training goes on without this checkpoint")

    def _remove_expendable(self, step: int) -> None:
        saved = checkpoint.step_checkpoints(self.out_dir)
        steps = checkpoint.expendable({one.step: one.val_loss for one in saved}, step, self.args)
        for one in saved:
            if one.step in steps and not _same(one.folder, self.resumed_from):
                try:
                    checkpoint.remove(one.folder)
                except LitMoEError as error:  # no reason to stop: it is tried again after the next save
                    self._lines.put(str(error))

    def _finish(self) -> None:
        """Wait for the thread, on the first process.

        Raises:
            LitMoEError: what it has come to.
        """
        pending, self._on_its_way = self._on_its_way, None
        try:
            if pending is not None:
                pending.result()
        finally:
            self._say_lines()

    def _say_lines(self) -> None:
        while not self._lines.empty():
            self.say(self._lines.get())


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
            f"({count} of {readable(size)}): free some, or keep fewer with --checkpoint.keep_last"
        )


def _optimizer_bytes(run: Run) -> int:
    """The size of the state that the optimizer will have."""
    return sum(t.nbytes + checkpoint.TENSOR_OVERHEAD for t in state_shapes(run.optimizer.optimizer))


def _same(folder: Path, other: Path | None) -> bool:
    return other is not None and folder.resolve() == other.resolve()
