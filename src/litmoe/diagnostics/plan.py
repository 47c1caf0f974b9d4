"""The plan of a run, before anything runs: memory of a step, disk and arithmetic; and whether it fits."""

from dataclasses import dataclass, replace

from litgpt import Config

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.config.checks import check_batch
from litmoe.diagnostics.devices import Device
from litmoe.diagnostics.step_memory import FRAMEWORK, FULLEST, StepMemory, estimate_step
from litmoe.errors import LitMoEError
from litmoe.messages import Say, silent
from litmoe.model.advice import advice
from litmoe.model.flops import flops_per_token, num_active_params, num_params
from litmoe.training.device import settle_precision
from litmoe.training.schedule import Horizon, horizon
from litmoe.training.setup import model_and_length

MARGIN = 0.05
"""Relative error allowed for the estimated memory, which must be free in addition for a run to fit
(benchmarks/plan_accuracy.py: 0.5 % on average, 3.7 % at most)."""


@dataclass(frozen=True)
class Plan:
    """What a run will need."""

    config: TrainConfig
    """Of the run, with its precision settled."""
    model_config: Config
    seq_length: int
    device: Device
    devices: int
    """How many of them."""
    memory: StepMemory
    """On each device, including the parts that CUDA and several devices add."""
    horizon: Horizon | None
    """None: it depends on the length of the text, which has not been read."""

    @property
    def fits(self) -> bool | None:
        """Whether the memory is enough, with :data:`MARGIN`; None if the device's is unknown."""
        return (
            None if self.device.n_bytes is None else self.memory.total * (1 + MARGIN) <= self.device.n_bytes
        )

    @property
    def allocated(self) -> int:
        """Bytes that torch's allocator counts."""
        return self.memory.total - self.memory.parts.get("CUDA context, libraries", 0)

    @property
    def n_params(self) -> int:
        """Parameters of the model, tied ones once."""
        return num_params(self.model_config) - self._tied

    @property
    def n_active_params(self) -> int:
        """Parameters that one token meets, tied ones once."""
        return num_active_params(self.model_config) - self._tied

    @property
    def _tied(self) -> int:
        """Parameters that are counted twice where embedding and head are one."""
        model = self.model_config
        return model.padded_vocab_size * model.n_embd if self.config.train.tie_embeddings else 0

    @property
    def flops_per_token(self) -> int:
        """Forward and backward."""
        return flops_per_token(self.model_config, self.seq_length)

    @property
    def checkpoint_bytes(self) -> int:
        """Approximate size of one checkpoint: weights and optimizer, without the tokenizer."""
        return (
            self.memory.parts["parameters"] + self.memory.parts.get("optimizer state", 0) + self.memory.host
        )

    @property
    def checkpoints(self) -> int | None:
        """The most of them that a new run has on the disk at once."""
        if self.horizon is None:
            return None
        return checkpoint.count_to_come(self.config, 0, self.horizon.steps, there=0)

    @property
    def advice(self) -> list[str]:
        """What a person may not expect of the model and its balance."""
        return advice(self.model_config, self.config.moe)


def make_plan(config: TrainConfig, device: Device, fullest: float = FULLEST, say: Say = silent) -> Plan:
    """Plan a run on a device. No weight is allocated, and no text is read.

    Args:
        config: of the run; stays as it is.
        device: where it is to run.
        fullest: tokens of the fullest expert over the mean.
        say: told where the plan departs from the configuration.

    Raises:
        LitMoEError: a configuration that cannot work.
    """
    # what the device settles
    if device.is_here:
        config = settle_precision(config, device.kind, say)
    config = replace(config, precision=config.precision or "bf16-mixed")
    model_config, seq_length = model_and_length(config)
    devices = config.devices if isinstance(config.devices, int) else device.count
    check_batch(config.train, devices * config.num_nodes)

    # the memory of a step, and what the device and others like it add
    step = estimate_step(config, fullest)
    parts = dict(step.parts)
    if devices * config.num_nodes > 1:
        parts["DDP gradient buckets"] = parts["parameters"]
    if device.kind == "cuda":
        parts["CUDA context, libraries"] = FRAMEWORK

    # the length of the run, unless that depends on the text
    try:
        extent = horizon(config.train, seq_length, None)
    except LitMoEError:
        extent = None
    return Plan(config, model_config, seq_length, device, devices, replace(step, parts=parts), extent)
