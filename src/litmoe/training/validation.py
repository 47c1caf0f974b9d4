"""The loss on a run's fixed validation windows."""

import math

import torch

from litmoe.errors import DataError
from litmoe.model.objective import n_targets
from litmoe.training.batches import NOTHING_TO_PREDICT
from litmoe.training.run import Run


def validate(run: Run) -> float:
    """Mean loss over all targets of the run's validation windows, in nats per token.

    Raises:
        DataError: there are none.
    """
    run.objective.eval()
    device = run.fabric.device
    totals = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    with torch.no_grad():
        for inputs_BT, targets_BT in run.batches.validation(run.micro_batch_size):
            count = n_targets(targets_BT)
            totals += torch.stack([run.objective(inputs_BT, targets_BT).cross_entropy * count, count])
    run.objective.train()
    loss_sum, count = run.fabric.all_reduce(totals, reduce_op="sum").tolist()
    if not count:
        raise DataError(NOTHING_TO_PREDICT)
    run.state.val_loss = loss_sum / count
    run.state.best_val_loss = min(run.state.val_loss, run.state.best_val_loss or math.inf)
    return run.state.val_loss


def bits_per_byte(run: Run) -> float | None:
    """The last validation loss per byte of text, which does not depend on the tokenizer; None if unknown."""
    if run.state.val_loss is None or not run.batches.bytes_per_token:
        return None
    return run.state.val_loss / math.log(2) / run.batches.bytes_per_token
