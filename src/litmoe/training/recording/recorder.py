"""Where the figures and texts of a run go: ``metrics.csv`` always, and the logger of choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litmoe.config import as_plain
from litmoe.model.moe.layer import MoE
from litmoe.training.recording.metrics import make_logger
from litmoe.training.recording.metrics_file import MetricsFile, Row, columns
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
            config.out_dir / "metrics.csv",
            columns(n_moe, run.model_config.n_expert),
            resume_step=run.state.step if resumed else None,
        )

    def row(self, row: Row, to_disk: bool = True) -> None:
        """The figures of a step; ``to_disk`` as in :meth:`MetricsFile.write`.

        Raises:
            LitMoEError: the disk is full, or the folder has gone.
        """
        if self.active:
            self.metrics.write(row, to_disk)
            if self.logger is not None:
                self.logger.log_metrics(row, step=int(row["step"]))

    def texts(self, texts: Sequence[str]) -> None:
        """What the model writes at this step."""
        if self.active and self.table is not None and texts:
            self.table.add(self.run.state.step, texts)

    def checkpoint(self, folder: Path, val_loss: float | None) -> None:
        """A checkpoint that is on the disk, where W&B is to have it."""
        if self.active and self.wandb is not None and self.run.config.wandb_checkpoints:
            best = val_loss is not None and val_loss == self.run.state.best_val_loss
            facts = {"step": self.run.state.step, "val_loss": val_loss}
            log_checkpoint(self.wandb, folder, model_artifact_name(self.run.model_config.name), facts, best)

    def close(self, status: str) -> None:
        if self.active:
            self.metrics.close()
            if self.logger is not None:
                self.logger.finalize(status)
