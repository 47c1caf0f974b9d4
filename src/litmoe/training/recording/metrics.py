"""The figures of a step, and the row of metrics that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning.fabric import Fabric
from torch import Tensor

from litmoe.model.moe.balance import switch_loss
from litmoe.training.recording.metrics_file import MOE_COLUMNS, Row

if TYPE_CHECKING:
    from litmoe.training.run import Run


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
    requests: Sequence[float] = ()
    """What the ranks ask for after this step, summed over them; the loop says what each number means."""

    @classmethod
    def over_all(
        cls, fabric: Fabric, sums: Sequence[Tensor], accumulation: int, requests: Sequence[float] = ()
    ) -> "StepFigures":
        """From the sums over this device's micro-batches of what an ``Objective`` returns after its total.

        With several devices this is the step's one exchange besides the gradients'.
        """
        loss, _, z, counts_LE, p_LE, entropy_L = sums
        if fabric.world_size > 1:
            mine = torch.tensor(requests, dtype=torch.float64, device=loss.device)
            parts = (loss, z, p_LE, entropy_L, counts_LE, mine)
            # fp64 holds counts exactly
            packed = fabric.all_reduce(
                torch.cat([part.double().flatten() for part in parts]), reduce_op="sum"
            )
            split = packed.split([part.numel() for part in parts])
            loss, z, p_LE, entropy_L, counts_LE, mine = (
                total.view_as(part).to(part.dtype) for total, part in zip(split, parts, strict=True)
            )
            requests = mine.tolist()
            accumulation *= fabric.world_size
        loss, z, p_LE, entropy_L = (t / accumulation for t in (loss, z, p_LE, entropy_L))
        return cls(loss.item(), z.item(), counts_LE, p_LE, entropy_L, requests=requests)


def row_of(run: "Run", figures: StepFigures, learning_rate: float) -> Row:
    """The figures of a step as a row of metrics, without speed and validation."""
    state, n_windows = run.state, run.batches.n_windows
    row: Row = {
        "step": state.step,
        "train_loss": figures.train_loss,
        "learning_rate": learning_rate,
        "time": round(state.seconds, 3),
        "iter_tokens": run.horizon.tokens_per_step,
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
