"""Experts that no token goes to any more."""

from torch import Tensor

from litmoe.training.recording.events import EventLog

STEPS = 50
"""An expert is dead when it gets no token over so many steps; in one small batch that means little."""
_FEWEST = 20
"""Assignments that an expert would have got by an even share; with fewer, none may be chance."""
_MOST_LAYERS = 4


class DeadExperts:
    """Counts the tokens of every expert, and says when some get none."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._sum_LE: Tensor | None = None
        self._steps = self._said = 0

    def add(self, counts_LE: Tensor, last: bool) -> None:
        """Count a step; every :data:`STEPS` steps, and after the last one, look at the sum.

        Args:
            counts_LE: tokens that each expert of each MoE layer got in the global batch.
            last: whether it is the run's last step.
        """
        if not counts_LE.numel():
            return
        self._sum_LE = counts_LE.clone() if self._sum_LE is None else self._sum_LE + counts_LE
        self._steps += 1
        if self._steps < STEPS and not last:
            return
        sums_LE, steps = self._sum_LE.cpu(), self._steps
        self._sum_LE, self._steps = None, 0
        if sums_LE.sum(1).min() < _FEWEST * sums_LE.size(1):
            return
        dead_L = (sums_LE == 0).sum(1)
        count = int(dead_L.sum())
        if count > self._said:
            where = [f"{dead} in layer {layer}" for layer, dead in enumerate(dead_L.tolist()) if dead]
            layers = ", ".join(where[:_MOST_LAYERS]) + (", ..." if len(where) > _MOST_LAYERS else "")
            self._events.add(
                "dead_experts",
                f"{count} of {sums_LE.numel()} experts got no token in the last {steps} steps ({layers}): "
                "balance them with --moe.balance switch and a larger --moe.switch-coefficient, or lower the "
                "learning rate",
                figures={"dead": count, "experts": sums_LE.numel(), "steps": steps},
            )
        self._said = count
