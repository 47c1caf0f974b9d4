"""Where the figures and texts of a run go: ``metrics.csv`` always, and the logger of choice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from litmoe.errors import DiskFullError
from litmoe.messages import readable
from litmoe.model.moe.layer import MoE
from litmoe.training.recording.about import RunFile, facts_of, host_memory
from litmoe.training.recording.loggers import make_logger
from litmoe.training.recording.metrics_file import METRICS_FILE, MetricsFile, Row, columns, read_rows
from litmoe.training.recording.samples_file import append_samples, clear_samples
from litmoe.training.run import Run
from litmoe.wandb.run import (
    SampleTable,
    WandbLogger,
    log_checkpoint,
    model_artifact_name,
    record_dataset,
    wandb_run,
)

MOST_WAITING = 64 << 20
"""Bytes of rows that may wait in memory for room on the disk."""


class Recorder:
    """Writes on the first process; on the others it does nothing.

    Rows of ``metrics.csv`` are a part of the work. All else only shows it: where the logger or another file fails,
    that is an event, and training goes on without it.
    """

    def __init__(self, run: Run, resumed: bool) -> None:
        """
        Raises:
            LitMoEError: ``metrics.csv`` cannot be written, or the logger does not start.
        """
        self.run = run
        self.active = run.fabric.is_global_zero
        if not self.active:
            return
        config = run.config
        self.logger = make_logger(
            config, name=f"pretrain-{run.model_config.name}", resume=resumed, say=run.say
        )
        self.wandb: Any | None = wandb_run(self.logger)
        self.table: SampleTable | None = None
        n_moe = sum(isinstance(module, MoE) for module in run.gpt.modules())
        try:
            if self.wandb is not None and run.dataset is not None:
                record_dataset(self.wandb, run.dataset.artifact, run.dataset.fingerprint)
            self.metrics = MetricsFile(
                config.out_dir / METRICS_FILE,
                columns(n_moe, run.model_config.n_expert),
                resume_step=run.state.step if resumed else None,
            )
        except BaseException:  # the logger's files or connection are open already
            self._close_logger("failed")
            raise
        if isinstance(logger := self.logger, WandbLogger):
            self.table = SampleTable(logger.experiment, logger.next_step)
            if resumed:
                self._log(lambda: logger.catch_up(read_rows(self.metrics.path)))
        self._complete = True
        self.about: RunFile | None = None
        self._record(lambda: self._begin_record(resumed))

    def row(self, row: Row, to_disk: bool = True) -> bool:
        """Record the figures of a step; ``to_disk`` as in :meth:`MetricsFile.write`.

        Returns:
            Whether all rows up to this one are in the file. Where they are not, for want of room on a disk that
            ``checkpoint.on_full_disk: continue`` puts up with, no checkpoint may be written: a run that resumed
            from it would lack them.

        Raises:
            DiskFullError: there is no room, and the configuration says to stop, or too many rows wait for it.
            LitMoEError: the folder has gone, or the disk refuses.
        """
        if not self.active:
            return True
        memory: Row = {}
        self._record(lambda: memory.update(_memory(self.run)))
        row = {**row, **memory}
        try:
            self.metrics.write(row, to_disk)
        except DiskFullError as error:
            waiting = self.metrics.n_bytes_waiting
            if self.run.config.checkpoint.on_full_disk == "stop" or waiting > MOST_WAITING:
                raise
            if self._complete:
                rows = (
                    f"{error}; its rows wait in memory, up to {readable(MOST_WAITING)}, and training goes on"
                )
                self.run.events.add("metrics_delayed", rows)
        self._complete = self.metrics.n_bytes_waiting == 0
        if (logger := self.logger) is not None:
            self._log(lambda: logger.log_metrics(row, step=int(row["step"])))
        return self._complete

    def texts(self, texts: Sequence[str]) -> None:
        """Record what the model writes at this step."""
        if not self.active or not texts:
            return
        state, folder = self.run.state, self.run.config.out_dir
        self._record(lambda: append_samples(folder, state.step, state.tokens, texts))
        if (table := self.table) is not None:
            self._log(lambda: table.add(state.step, texts))

    def checkpoint(self, folder: Path, val_loss: float | None) -> None:
        """Upload a checkpoint that is on the disk, where W&B is to have it."""
        if self.active and self.wandb is not None and self.run.config.wandb_checkpoints:
            best = val_loss is not None and val_loss == self.run.state.best_val_loss
            facts = {"step": self.run.state.step, "val_loss": val_loss}
            name = model_artifact_name(self.run.model_config.name)
            self._log(lambda: log_checkpoint(self.wandb, folder, name, facts, best))

    def close(self, state: str) -> None:
        """Close the files; ``state`` is how the run ended: ``finished``, ``interrupted`` or ``failed``."""
        if not self.active:
            return
        self.metrics.close()
        if (about := self.about) is not None:
            self._record(lambda: about.end(state, self.run.state.step))
        self._close_logger("success" if state == "finished" else "failed")

    def _close_logger(self, status: str) -> None:
        if (logger := self.logger) is not None:
            self._log(lambda: logger.finalize(status))

    def _begin_record(self, resumed: bool) -> None:
        folder = self.run.config.out_dir
        self.about = RunFile(folder, facts_of(self.run), self.run.state.step, resumed)
        if not resumed:
            clear_samples(folder)

    def _record(self, task: Callable[[], object]) -> None:
        """Write what the run itself does not need, for whoever looks at it later."""
        self.run.events.show("record_failed", task, "training goes on; run.json and samples.jsonl end here")

    def _log(self, task: Callable[[], object]) -> None:
        """Give something to the logger; after its first failure it gets no more."""
        name = self.run.config.logger_name
        self.run.events.show(
            "logger_failed", task, f"training goes on without {name}; metrics.csv has every row"
        )


def _memory(run: Run) -> Row:
    """Bytes in use: on the device, the most that torch has held; in host memory, now."""
    row: Row = {"host_memory": host_memory()}
    if run.fabric.device.type == "cuda":
        row["device_memory"] = torch.cuda.max_memory_reserved(run.fabric.device)
    return row
