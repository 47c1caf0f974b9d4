"""One step: gradients of a global batch, and the update from them."""

from collections.abc import Iterator

from torch import Tensor

from litmoe.data.windows import Batch
from litmoe.model.moe.balance import update_correction_bias
from litmoe.model.moe.layer import MoE
from litmoe.optim.build import set_learning_rate
from litmoe.training.recording.metrics import StepFigures
from litmoe.training.run import Run


def gradients(run: Run, batches: Iterator[Batch]) -> StepFigures:
    """The clipped gradients of one global batch, and its figures; weights and optimizer stay as they are.

    With ``memory.step_in_backward`` the optimizer has done its step afterwards, by the learning rate that it has.
    """
    fabric, accumulation = run.fabric, run.accumulation
    sums: list[Tensor] = []
    for number in range(accumulation):
        inputs_BT, targets_BT = next(batches)
        # Only the last micro-batch exchanges gradients between devices.
        with fabric.no_backward_sync(run.objective, enabled=number < accumulation - 1):
            losses = run.objective(inputs_BT, targets_BT, run.state.load_LE)
            fabric.backward(losses.total / accumulation)
        sums = [a + b for a, b in zip(sums, losses[1:], strict=True)] if sums else list(losses[1:])
    figures = StepFigures.over_all(fabric, sums, accumulation)
    max_norm = run.config.train.max_norm
    if max_norm is not None:
        norm = fabric.clip_gradients(
            run.objective, run.optimizer, max_norm=max_norm, error_if_nonfinite=False
        )
        figures.grad_norm = float(norm)
    if run.in_backward is not None:
        figures.grad_norm = float(run.in_backward.take_norm())
    return figures


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
