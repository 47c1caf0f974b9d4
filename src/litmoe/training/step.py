"""One step: gradients of a global batch, and the update from them."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from litmoe.data.windows import Batch
from litmoe.model.moe.balance import update_correction_bias
from litmoe.model.moe.layer import MoE
from litmoe.model.objective import StepLosses, n_targets
from litmoe.optim.build import set_learning_rate
from litmoe.training.recording.metrics import StepFigures
from litmoe.training.run import Run


def gradients(
    run: Run, batches: Iterator[Batch], requests: Callable[[], Sequence[float]] = tuple
) -> StepFigures:
    """The clipped gradients of one global batch, and its figures; weights and optimizer stay as they are.

    They are those of the mean over the counted targets of the whole global batch, however it is cut into
    micro-batches and devices. With ``memory.step_in_backward`` the optimizer has done its step afterwards, by the
    learning rate that it has. ``requests`` is read once, and what all ranks ask for comes back with the figures.
    """
    fabric, accumulation = run.fabric, run.accumulation
    shares = None
    if run.batches.may_mask:  # then a micro-batch counts by its targets, which have to be counted first
        ahead = [next(batches) for _ in range(accumulation)]
        shares, batches = _shares(run, ahead), iter(ahead)

    # the backward of each micro-batch
    sums: list[Tensor] = []
    for number in range(accumulation):
        inputs_BT, targets_BT = next(batches)
        # Only the last micro-batch exchanges gradients between devices.
        with fabric.no_backward_sync(run.objective, enabled=number < accumulation - 1):
            losses = run.objective(inputs_BT, targets_BT, run.state.load_LE, masked=shares is not None)
            if shares is not None:
                losses = _weighted(losses, shares[number])
            fabric.backward(losses.total / accumulation)
        sums = [a + b for a, b in zip(sums, losses[1:], strict=True)] if sums else list(losses[1:])

    # figures and norm of the whole
    figures = StepFigures.over_all(fabric, sums, accumulation, requests())
    max_norm = run.config.train.max_norm
    if max_norm is not None:
        norm = fabric.clip_gradients(
            run.objective, run.optimizer, max_norm=max_norm, error_if_nonfinite=False
        )
        figures.grad_norm = float(norm)
    if run.in_backward is not None:
        figures.grad_norm = float(run.in_backward.take_norm())
    return figures


def _shares(run: Run, micro_batches: Sequence[Batch]) -> list[Tensor] | None:
    """The weight of each micro-batch of this device in the mean over all; None where all weigh the same.

    Weights are relative: their mean over all micro-batches of all devices is 1.
    """
    counts = torch.stack([n_targets(targets_BT) for _, targets_BT in micro_batches])
    whole = run.micro_batch_size * run.seq_length
    totals = torch.stack([counts.sum(), (counts != whole).sum()])
    n_all, n_uneven = run.fabric.all_reduce(totals, reduce_op="sum").tolist()
    if not n_uneven:
        return None
    n_micro_batches = len(micro_batches) * run.fabric.world_size
    return list(counts * (n_micro_batches / max(1, n_all)))


def _weighted(losses: StepLosses, share: Tensor) -> StepLosses:
    """Everything that is a mean, weighted; the counts are not."""
    weighted = StepLosses(*(value * share for value in losses))
    return weighted._replace(counts_LE=losses.counts_LE)


def update(run: Run, figures: StepFigures, learning_rate: float) -> None:
    """Apply the gradients to weights and optimizer, and the counts to the balance of the experts."""
    if run.in_backward is None:
        set_learning_rate(run.optimizer, learning_rate)
        run.optimizer.step()
        run.optimizer.zero_grad()
    run.state.load_LE = figures.counts_LE
    if run.config.moe.balance == "bias":
        layers = (module for module in run.gpt.modules() if isinstance(module, MoE))
        for moe, counts_E in zip(layers, figures.counts_LE, strict=True):
            bias_E = moe.gate.e_score_correction_bias
            update_correction_bias(bias_E, counts_E, run.config.moe.bias_update_speed)
