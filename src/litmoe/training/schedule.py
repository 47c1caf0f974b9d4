"""How many steps a run takes, and the learning rate at each of them."""

import math
from dataclasses import dataclass, field

from litmoe.config import ScheduleArgs, TrainArgs
from litmoe.errors import LitMoEError


@dataclass(frozen=True)
class Horizon:
    """The planned extent of a run."""

    steps: int
    """Optimizer updates in all."""
    warmup_steps: int
    """Steps of linear warm-up among them."""
    tokens_per_step: int
    """Tokens of the global batch."""
    asked_warmup_steps: int = field(default=0, compare=False)
    """As configured, which may be more than there are steps."""


def horizon(train: TrainArgs, seq_length: int, n_windows: int | None) -> Horizon:
    """The nearest of the ends that the configuration sets.

    Args:
        train: the ``train`` section.
        seq_length: tokens per window.
        n_windows: windows in the training text; None where the data module does not know.

    Raises:
        LitMoEError: the run would have no step at all, or ``epochs`` are asked for and cannot be counted.
    """
    tokens_per_step = train.global_batch_size * seq_length
    if n_windows is None and (train.epochs or train.lr_warmup_fraction):
        raise LitMoEError(
            "train.epochs and train.lr_warmup_fraction need a data module that knows its length: "
            "use train.max_tokens and train.lr_warmup_steps"
        )
    ends = [train.max_steps] if train.max_steps else []
    if train.max_tokens:
        ends.append(train.max_tokens // tokens_per_step)
    if train.epochs and n_windows:
        ends.append(train.epochs * n_windows // train.global_batch_size)
    steps = min(ends)
    if steps == 0:
        raise LitMoEError(
            f"the run would end before its first step of {tokens_per_step:,} tokens "
            f"(train.global_batch_size {train.global_batch_size} x {seq_length} tokens): "
            "raise train.max_tokens or train.epochs, or lower train.global_batch_size"
        )
    warmup = train.lr_warmup_steps or 0
    if train.lr_warmup_fraction and n_windows:
        warmup = math.ceil(train.lr_warmup_fraction * n_windows / train.global_batch_size)
    return Horizon(steps, min(warmup, steps), tokens_per_step, warmup)


def decay_steps(horizon: Horizon, schedule: ScheduleArgs) -> int:
    """Over how many steps, the last ones of the run, the learning rate decays."""
    after_warmup = horizon.steps - horizon.warmup_steps
    if schedule.name == "wsd":
        return min(after_warmup, max(1, round(schedule.decay_fraction * horizon.steps)))
    return after_warmup


def learning_rate(step: int, peak: float, min_lr: float, horizon: Horizon, schedule: ScheduleArgs) -> float:
    """The learning rate of step ``step``, counted from 0.

    Warm-up is linear and reaches ``peak`` at its last step; no step is wasted on a rate of zero. Cosine decay
    (arXiv 1608.03983) and the linear decay of ``wsd`` (arXiv 2404.06395) reach ``min_lr`` at the last step.
    """
    if step < horizon.warmup_steps:
        return peak * (step + 1) / horizon.warmup_steps
    if schedule.name == "constant":
        return peak
    decay = decay_steps(horizon, schedule)
    done = step + 1 - (horizon.steps - decay)
    if done <= 0:
        return peak
    progress = min(1.0, done / decay)
    if schedule.name == "wsd":
        return peak + progress * (min_lr - peak)
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (peak - min_lr)
