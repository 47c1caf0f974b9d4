"""What a run will need before anything of it runs: memory of a step, disk, arithmetic; and whether it fits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from litgpt import Config

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.config.checks import check_batch
from litmoe.diagnostics.devices import Device
from litmoe.diagnostics.step_memory import FRAMEWORK, FULLEST, StepMemory, foresee
from litmoe.errors import LitMoEError
from litmoe.model.flops import flops_per_token, num_active_params, num_params
from litmoe.training.device import settle_precision
from litmoe.training.schedule import Horizon, horizon
from litmoe.training.setup import model_and_length

MARGIN = 0.05
"""Share of the memory foreseen by which a plan may be off (benchmarks/plan_accuracy.py: 0.5 % in the mean, 3.7 %
at most), and which must be free beside it for a run to fit."""


@dataclass(frozen=True)
class Plan:
    """What a run will need."""

    config: TrainConfig
    """The run's, with its precision settled."""
    model_config: Config
    seq_length: int
    device: Device
    devices: int
    """How many of it."""
    memory: StepMemory
    """On each device, the parts that the device itself and several of them need included."""
    horizon: Horizon | None
    """None: as long as the text is, which has not been looked at."""

    @property
    def fits(self) -> bool | None:
        """Whether the memory is enough, with :data:`MARGIN`; None where nobody knows how much there is."""
        return (
            None if self.device.n_bytes is None else self.memory.total * (1 + MARGIN) <= self.device.n_bytes
        )

    @property
    def allocated(self) -> int:
        """Of the memory, what torch's allocator counts."""
        return self.memory.total - self.memory.parts.get("CUDA context, libraries", 0)

    @property
    def n_params(self) -> int:
        return num_params(self.model_config) - self._tied

    @property
    def n_active_params(self) -> int:
        return num_active_params(self.model_config) - self._tied

    @property
    def _tied(self) -> int:
        """Parameters that are counted twice where embedding and head are one."""
        model = self.model_config
        return model.padded_vocab_size * model.n_embd if self.config.train.tie_embeddings else 0

    @property
    def flops_per_token(self) -> int:
        return flops_per_token(self.model_config, self.seq_length)

    @property
    def checkpoint_bytes(self) -> int:
        """About the size of one checkpoint: weights and optimizer, without the tokenizer."""
        return (
            self.memory.parts["parameters"] + self.memory.parts.get("optimizer state", 0) + self.memory.host
        )

    @property
    def checkpoints(self) -> int | None:
        """How many of them a new run has on the disk at most."""
        return (
            None
            if self.horizon is None
            else checkpoint.count_to_come(self.config, 0, self.horizon.steps, there=0)
        )


def make_plan(
    config: TrainConfig, device: Device, fullest: float = FULLEST, say: Callable[[str], None] = print
) -> Plan:
    """The plan of a run on a device. No weight is allocated, and no text is read.

    Args:
        config: the run's.
        device: where it is to run.
        fullest: tokens of the fullest expert over the mean.
        say: gets what is reckoned otherwise than the configuration has it.

    Raises:
        LitMoEError: a configuration that cannot work.
    """
    if device.is_here:
        config = settle_precision(config, device.kind, say)
    config = replace(config, precision=config.precision or "bf16-mixed")
    model_config, seq_length = model_and_length(config)
    devices = config.devices if isinstance(config.devices, int) else device.count
    check_batch(config.train, devices * config.num_nodes)
    step = foresee(config, fullest)
    parts = dict(step.parts)
    if devices * config.num_nodes > 1:
        parts["gradients on their way (DDP)"] = parts["parameters"]
    if device.kind == "cuda":
        parts["CUDA context, libraries"] = FRAMEWORK
    try:
        extent = horizon(config.train, seq_length, None)
    except LitMoEError:
        extent = None
    return Plan(config, model_config, seq_length, device, devices, replace(step, parts=parts), extent)
