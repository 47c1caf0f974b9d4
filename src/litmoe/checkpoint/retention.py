"""Which checkpoints of a run are kept, and how many there will be."""

from collections.abc import Mapping

from litmoe.config import CheckpointArgs, TrainConfig


def expendable(saved: Mapping[int, float | None], newest: int, keep: CheckpointArgs) -> set[int]:
    """The steps whose checkpoints need not be kept.

    Checkpoints of later steps than the newest are left alone: they belong to a branch of the run that somebody
    went back from.

    Args:
        saved: steps and, where it was measured, their validation loss.
        newest: the step that has just been saved; always kept.
        keep: the rule.
    """
    if keep.keep_last is None:
        return set()
    steps = sorted(step for step in saved if step <= newest)
    kept = {newest, *steps[max(0, len(steps) - keep.keep_last) :]}
    if keep.keep_every:
        kept |= {step for step in steps if step % keep.keep_every == 0}
    losses = [(loss, step) for step in steps if (loss := saved[step]) is not None]
    if keep.keep_best and losses:
        kept.add(min(losses)[1])
    return set(steps) - kept


def count_to_come(config: TrainConfig, first: int, last: int, there: int) -> int:
    """How many more checkpoints than now a run has on the disk at most, ``final`` among them.

    Args:
        config: the run's.
        first: the step that the run starts or resumes at.
        last: its last step.
        there: step checkpoints that are on the disk already.
    """
    keep, interval = config.checkpoint, config.train.save_interval
    due = last // interval - first // interval if interval else 0
    # the last step's checkpoint is `final` under a second name, at no cost
    final = int(not interval or last % interval != 0)
    if keep.keep_last is None or not interval:
        return due + final
    marked = range(keep.keep_every, last + 1, keep.keep_every) if keep.keep_every else range(0)
    kept = max(keep.keep_last, 1) + keep.keep_best + sum(step % interval == 0 for step in marked)
    # one more while it is written: only then is another one removed
    at_most = min(there + due, kept + 1)
    return max(min(due, 1), at_most - there) + final
