"""Where the figures and texts of a run go: ``metrics.csv`` always, and the logger of choice."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from litmoe.config import as_plain
from litmoe.errors import LitMoEError
from litmoe.model.moe.layer import MoE
from litmoe.training.recording.about import RunFile, facts_of, host_memory
from litmoe.training.recording.metrics import make_logger
from litmoe.training.recording.metrics_file import METRICS_FILE, MetricsFile, Row, columns
from litmoe.training.recording.samples_file import append_samples, clear_samples
from litmoe.training.run import Run
from litmoe.wandb.run import (
    SampleTable,
    log_checkpoint,
    model_artifact_name,
    record_dataset,
    wandb_run,
)


class Recorder:
    """Writes on the first process; on the others it does nothing."""

    def __init__(self, run: Run, resumed: bool) -> None:
        """
        Raises:
            LitMoEError: the file cannot be written, or the logger is not installed or does not start.
        """
        self.run = run
        self.active = run.fabric.is_global_zero
        if not self.active:
            return
        config = run.config
        self.logger = make_logger(config, name=f"pretrain-{run.model_config.name}", resume=resumed)
        if self.logger is not None:
            self.logger.log_hyperparams(as_plain(config))
        self.wandb: Any | None = wandb_run(self.logger)
        self.table = SampleTable(self.wandb) if self.wandb is not None else None
        if self.wandb is not None and run.dataset is not None:
            record_dataset(self.wandb, run.dataset.artifact, run.dataset.fingerprint)
        n_moe = sum(isinstance(module, MoE) for module in run.gpt.modules())
        self.metrics = MetricsFile(
            config.out_dir / METRICS_FILE,
            columns(n_moe, run.model_config.n_expert),
            resume_step=run.state.step if resumed else None,
        )
        self.about: RunFile | None = None
        try:  # for whoever looks at the run later; the run itself needs none of it
            self.about = RunFile(config.out_dir, facts_of(run), run.state.step, resumed)
            if not resumed:
                clear_samples(config.out_dir)
        except LitMoEError as error:
            run.say(f"not recorded: {error}")

    def row(self, row: Row, to_disk: bool = True) -> None:
        """The figures of a step; ``to_disk`` as in :meth:`MetricsFile.write`.

        Raises:
            LitMoEError: the disk is full, or the folder has gone.
        """
        if self.active:
            row = {**row, **_memory(self.run)}
            self.metrics.write(row, to_disk)
            if self.logger is not None:
                self.logger.log_metrics(row, step=int(row["step"]))

    def texts(self, texts: Sequence[str]) -> None:
        """What the model writes at this step."""
        if not self.active or not texts:
            return
        state = self.run.state
        try:
            append_samples(self.run.config.out_dir, state.step, state.tokens, texts)
        except LitMoEError as error:
            self.run.say(f"not recorded: {error}")
        if self.table is not None:
            self.table.add(state.step, texts)

    def checkpoint(self, folder: Path, val_loss: float | None) -> None:
        """A checkpoint that is on the disk, where W&B is to have it."""
        if self.active and self.wandb is not None and self.run.config.wandb_checkpoints:
            best = val_loss is not None and val_loss == self.run.state.best_val_loss
            facts = {"step": self.run.state.step, "val_loss": val_loss}
            log_checkpoint(self.wandb, folder, model_artifact_name(self.run.model_config.name), facts, best)

    def close(self, state: str) -> None:
        """The end: ``finished``, ``interrupted`` or ``failed``."""
        if self.active:
            self.metrics.close()
            if self.about is not None:
                with suppress(LitMoEError):  # a full disk, which the run itself has run into and named
                    self.about.end(state, self.run.state.step)
            if self.logger is not None:
                self.logger.finalize("success" if state == "finished" else "failed")


def _memory(run: Run) -> Row:
    """Bytes in use: on the device, the most that torch has held; in host memory, now."""
    row: Row = {"host_memory": host_memory()}
    if run.fabric.device.type == "cuda":
        row["device_memory"] = torch.cuda.max_memory_reserved(run.fabric.device)
    return row
