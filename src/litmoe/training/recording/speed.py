"""How fast a run trains."""

from lightning.fabric.utilities.throughput import get_available_flops

from litmoe.model.flops import flops_per_token
from litmoe.model.precision import product_dtype
from litmoe.training.recording.metrics_file import Row
from litmoe.training.run import Run


class Speed:
    """Measures the steps since the last row of metrics."""

    def __init__(self, run: Run) -> None:
        self._tokens_per_step = run.horizon.tokens_per_step
        self._flops_per_token = flops_per_token(run.model_config, run.seq_length)
        self._peak_flops = peak_flops(run)
        self._seconds: list[float] = []

    def add(self, seconds: float) -> float:
        """Count a step of so many seconds; returns them."""
        self._seconds.append(seconds)
        return seconds

    def restart(self) -> None:
        """Forget the steps so far: their row is written."""
        self._seconds = []

    @property
    def seconds_per_step(self) -> float:
        """Mean over the steps since the last row."""
        return sum(self._seconds) / len(self._seconds)

    def figures(self) -> Row:
        """Tokens and FLOP per second over all devices, and the share of their peak where that is known."""
        row: Row = {"tokens_per_second": self._tokens_per_step / self.seconds_per_step}
        row["flops_per_second"] = row["tokens_per_second"] * self._flops_per_token
        if self._peak_flops:
            row["mfu"] = row["flops_per_second"] / self._peak_flops
        return row


def peak_flops(run: Run) -> float | None:
    """Peak FLOP/s of all devices in this precision; None if unknown."""
    if run.fabric.device.type != "cuda":
        return None
    per_device = get_available_flops(run.fabric.device, product_dtype(str(run.config.precision)))
    return per_device * run.fabric.world_size if per_device else None
