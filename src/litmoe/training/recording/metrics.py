"""Metrics of a run: one row per logged step in ``metrics.csv``, and the same figures to a logger of choice."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.logger import Logger
from torch import Tensor

from litmoe.config import TrainConfig, as_plain
from litmoe.errors import LitMoEError
from litmoe.model.moe.routing import switch_loss
from litmoe.wandb.datasets import project_name

if TYPE_CHECKING:
    from litmoe.training.run import Run

Row = dict[str, float | int]

BASE_COLUMNS = (
    "step",
    "train_loss",
    "val_loss",
    "learning_rate",
    "epoch",
    "time",
    "iter_tokens",
    "total_tokens",
    "tokens_per_second",
    "val_bits_per_byte",
    "grad_norm",
    "flops_per_second",
    "mfu",
    "skipped_steps",
    "rollbacks",
)
MOE_COLUMNS = ("switch_loss", "z_loss", "load_max_over_mean", "router_entropy", "dead_experts")


def columns(n_moe_layers: int, n_expert: int) -> list[str]:
    """All columns of a run's metrics; those of the experts only where there are any."""
    if n_moe_layers == 0:
        return list(BASE_COLUMNS)
    layers = range(n_moe_layers)
    per_layer = [f"{name}_L{layer}" for name in MOE_COLUMNS[2:] for layer in layers]
    loads = [f"load_L{layer}_E{expert}" for layer in layers for expert in range(n_expert)]
    return [*BASE_COLUMNS, *MOE_COLUMNS, *per_layer, *loads]


@dataclass
class StepFigures:
    """One step, over the whole global batch and all devices. L: MoE layers, E: experts."""

    train_loss: float
    z_loss: float
    counts_LE: Tensor
    """Tokens that each expert got."""
    p_LE: Tensor
    """Mean router probabilities."""
    entropy_L: Tensor
    """Mean entropy of the router's choice for a token, in nats."""
    grad_norm: float | None = None
    """Before clipping; None without clipping."""

    @classmethod
    def over_all(cls, fabric: Fabric, sums: Sequence[Tensor], accumulation: int) -> "StepFigures":
        """From the sums over this device's micro-batches of what an ``Objective`` returns after its total."""
        loss, _, z, counts_LE, p_LE, entropy_L = sums
        if fabric.world_size > 1:
            packed = torch.cat([loss[None], z[None], p_LE.flatten(), entropy_L]) / accumulation
            packed = fabric.all_reduce(packed, reduce_op="mean")
            loss, z = packed[0], packed[1]
            p_LE, entropy_L = packed[2 : 2 + p_LE.numel()].view_as(p_LE), packed[2 + p_LE.numel() :]
            counts_LE = fabric.all_reduce(counts_LE, reduce_op="sum")
        else:
            loss, z, p_LE, entropy_L = (t / accumulation for t in (loss, z, p_LE, entropy_L))
        return cls(loss.item(), z.item(), counts_LE, p_LE, entropy_L)


def row_of(run: "Run", figures: StepFigures, learning_rate: float) -> Row:
    """The figures of a step as a row of metrics, without speed and validation."""
    state, n_windows = run.state, run.batches.n_windows
    row: Row = {
        "step": state.step,
        "train_loss": figures.train_loss,
        "learning_rate": learning_rate,
        "time": round(state.seconds, 3),
        "iter_tokens": run.plan.tokens_per_step,
        "total_tokens": state.tokens,
        "skipped_steps": state.skipped_steps,
        "rollbacks": state.rollbacks,
    }
    if n_windows is not None:
        row["epoch"] = round(state.samples / n_windows, 6)
    if figures.grad_norm is not None:
        row["grad_norm"] = figures.grad_norm
    if len(figures.counts_LE):
        row |= _moe_figures(figures)
    return row


def _moe_figures(figures: StepFigures) -> Row:
    counts_LE = figures.counts_LE.float()
    load_LE = counts_LE / counts_LE.sum(dim=1, keepdim=True)
    uneven_L = load_LE.max(dim=1).values * load_LE.size(1)
    dead_L = (counts_LE == 0).sum(dim=1)
    row: Row = {
        "switch_loss": switch_loss(figures.p_LE, figures.counts_LE).mean().item(),
        "z_loss": figures.z_loss,
        "load_max_over_mean": uneven_L.max().item(),
        "router_entropy": figures.entropy_L.mean().item(),
        "dead_experts": int(dead_L.sum()),
    }
    layers = zip(uneven_L.tolist(), figures.entropy_L.tolist(), dead_L.tolist(), strict=True)
    for layer, values in enumerate(layers):
        row |= {f"{name}_L{layer}": value for name, value in zip(MOE_COLUMNS[2:], values, strict=True)}
    for layer, load_E in enumerate(load_LE.tolist()):
        row |= {f"load_L{layer}_E{expert}": round(share, 6) for expert, share in enumerate(load_E)}
    return row


class MetricsFile:
    """``metrics.csv``: a row is on disk when ``write`` returns; empty where not measured."""

    def __init__(self, path: Path, names: Sequence[str], resume_step: int | None) -> None:
        """Open for a new run, or for one that goes on after ``resume_step``: later rows are dropped.

        Raises:
            LitMoEError: the file cannot be written.
        """
        self.path = path
        self.names = list(names)
        self._last_step = 0
        self._open(resume_step)

    def write(self, row: Mapping[str, Any], to_disk: bool = True) -> None:
        """Add a row; where the run has gone back, the rows from that step on are dropped first.

        Every row is with the system at once, so that no killed process loses one. ``to_disk`` waits until this one
        and all before it would outlast a crash of the machine too. That takes milliseconds, and only the rows of
        steps with a checkpoint need it: a resumed run writes those after them again.

        Raises:
            LitMoEError: the disk is full, or the folder has gone.
        """
        if row["step"] <= self._last_step:
            self.close()
            self._open(row["step"] - 1)
        self._last_step = row["step"]
        try:
            self._writer.writerow(row)
            self._file.flush()
            if to_disk:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        self._file.close()

    def _open(self, up_to: int | None) -> None:
        """Rewrite the file with the rows up to a step, none of them for None, and open it for more."""
        rows = self._rows_up_to(up_to) if up_to is not None and self.path.is_file() else []
        beside = self.path.with_name(f".{self.path.name}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.names, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
            beside.replace(self.path)
            self._file = self.path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error
        self._writer = csv.DictWriter(self._file, self.names)
        self._last_step = int(rows[-1]["step"]) if rows else 0

    def _unwritable(self, error: OSError) -> LitMoEError:
        return LitMoEError(f"{self.path}: cannot be written ({error.strerror}): choose another --out-dir")

    def _rows_up_to(self, step: int) -> list[dict[str, str]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]
        return [row for row in rows if int(row["step"]) <= step]


def make_logger(config: TrainConfig, name: str, resume: bool) -> Logger | None:
    """The logger besides ``metrics.csv``: none for ``csv``, else LitGPT's own choice of Lightning's loggers.

    Raises:
        LitMoEError: its package is not installed (names the extra), or it refuses to start.
    """
    if config.logger_name == "csv":
        return None
    from litgpt.utils import choose_logger

    log_args = {key: value for key, value in as_plain(config.log).items() if value is not None}
    if config.logger_name == "wandb":
        log_args.setdefault("project", project_name())
    place = {}
    if config.logger_name == "wandb":  # Lightning would say "here", whatever the environment says
        place["save_dir"] = os.environ.get("WANDB_DIR", ".")
    if config.logger_name == "mlflow" and "MLFLOW_TRACKING_URI" not in os.environ:
        # MLflow 3 refuses the folder that Lightning would choose: it wants a database.
        place["tracking_uri"] = f"sqlite:///{(config.out_dir / 'mlflow.db').resolve().as_posix()}"
    try:
        return choose_logger(
            config.logger_name, config.out_dir, name=name, resume=resume, log_args=log_args, **place
        )
    except ModuleNotFoundError as error:
        raise LitMoEError(
            f"logger_name {config.logger_name} needs a package that is not installed: "
            f'pip install "litmoe[{config.logger_name}]" (in a checkout: uv sync --extra {config.logger_name})'
        ) from error
