"""A run: its parts, fixed once it has begun, and what changes from step to step."""

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from lightning.fabric import Fabric
from litgpt import Config, Tokenizer
from torch import Tensor

from litmoe.config import TrainConfig
from litmoe.data.tokenizer import tokenizer_fingerprint
from litmoe.data.windows import Batch
from litmoe.model.gpt import GPT
from litmoe.optim.in_backward import StepInBackward
from litmoe.training.batches import Batches
from litmoe.training.recording.events import EventLog
from litmoe.training.schedule import Horizon
from litmoe.wandb.datasets import Dataset


@dataclass
class State:
    """What changes from step to step, besides weights and optimizer.

    A checkpoint holds it. A field that an older checkpoint lacks gets its default.
    """

    step: int = 0
    """Steps done."""
    samples: int = 0
    """Windows read, over all devices: the position in the data."""
    tokens: int = 0
    """Tokens trained on, over all devices."""
    seconds: float = 0.0
    """Time spent in steps."""
    load_LE: Tensor | None = None
    """Tokens per MoE layer and expert in the last global batch."""
    train_loss: float | None = None
    """Of the last global batch."""
    val_loss: float | None = None
    """Of the last validation."""
    best_val_loss: float | None = None
    """The lowest so far."""
    skipped_steps: int = 0
    """Steps whose update was not applied."""
    bad_in_a_row: int = 0
    """Of these, how many in a row up to now."""
    rollbacks: int = 0
    """How often the run went back to a checkpoint."""
    rolled_back_to: int | None = None
    """The step it last went back to."""
    recent_losses: list[float] = field(default_factory=list)
    """Of the last steps, where spikes are looked for."""
    learning_rate: float | None = None
    """Of the last update."""
    micro_batch_size: int | None = None
    """Windows per device at once, halved since memory ran out; None: as configured."""


@dataclass
class Run:
    """The parts of a run, fixed once it has begun, and its state."""

    config: TrainConfig
    """The run's own copy, settled for this machine. Nothing writes to it."""
    fabric: Fabric
    model_config: Config
    tokenizer: Tokenizer | None
    batches: Batches
    seq_length: int
    horizon: Horizon
    gpt: GPT
    objective: Any
    """The :class:`Objective` as Fabric wrapped it."""
    optimizer: Any
    """The optimizer as Fabric wrapped it."""
    peak_lr: float
    in_backward: StepInBackward | None = None
    """What updates parameters during the backward, by ``memory.step_in_backward``."""
    dataset: Dataset | None = None
    """The data set of Weights & Biases that the run trains on, where it is one."""
    events: EventLog = field(default_factory=EventLog)
    """Takes the run's lines for a person, and what is unusual in it."""
    state: State = field(default_factory=State)
    _data: Generator[Batch, None, None] | None = None

    def say(self, line: str) -> None:
        """Tell a person; silent on all processes but the first."""
        self.events.say(line)

    def data(self) -> Iterator[Batch]:
        """This device's micro-batches from the present position on."""
        if self._data is None:
            self._data = self.batches.training(self.state.samples, self.micro_batch_size)
        return self._data

    def restart_data(self) -> None:
        """Read again from the present position: it, or the micro-batch, has changed."""
        self.close()

    def close(self) -> None:
        """Stop reading ahead."""
        if self._data is not None:
            self._data.close()
            self._data = None

    @property
    def micro_batch_size(self) -> int:
        """Windows that are on a device at once: as configured, or fewer since memory ran out."""
        return self.state.micro_batch_size or self.config.train.micro_batch_size

    @property
    def accumulation(self) -> int:
        """Micro-batches per step on each device."""
        return self.config.train.global_batch_size // (self.micro_batch_size * self.fabric.world_size)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued; read once, at the start."""
        path = self.config.optimizer.class_path
        return {
            "model": {k: v for k, v in asdict(self.model_config).items() if k not in ("name", "hf_config")},
            "tokenizer": self.config.tokenizer_dir and tokenizer_fingerprint(self.config.tokenizer_dir),
            "training text": self.batches.fingerprint,
            "order of the data": self.config.data.init_args.get("seed", 42),
            "tokens per window": self.seq_length,
            # torchao keeps the same moments in another form
            "optimizer": path if path.startswith("torchao.") else path.rpartition(".")[2],
            "tied embeddings": bool(self.config.train.tie_embeddings),
        }
