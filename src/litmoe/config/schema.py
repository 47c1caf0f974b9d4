"""Every setting of a training run as a typed dataclass.

It has LitGPT's names and shape (``litgpt/args.py`` and ``litgpt/pretrain.py::setup``), and sections of litmoe's
own: ``moe``, ``memory``, ``schedule``, ``sample``, ``checkpoint``, ``faults``, ``prepare``. The string below a
setting is its help; the short help shows its first sentence.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from litmoe.config.values import File, Folder, Name, PathOrName


@dataclass
class TrainArgs:
    """How long to train, in what batches, and how often to save and log (LitGPT's names)."""

    save_interval: int | None = 1000
    """Steps between checkpoints; null: only the final one."""
    log_interval: int = 1
    """Steps between rows of metrics."""
    global_batch_size: int = 64
    """Windows per step, over all devices."""
    micro_batch_size: int = 4
    """Windows at once on a device; memory grows with it."""
    lr_warmup_steps: int | None = None
    """Steps of linear warm-up; null or 0: none."""
    lr_warmup_fraction: float | None = None
    """Warm-up as a fraction of an epoch, instead of ``lr_warmup_steps``."""
    epochs: int | None = None
    """Stop after this many passes over the training text."""
    max_tokens: int | None = None
    """Stop after this many tokens, rounded down to whole steps."""
    max_steps: int | None = None
    """Stop after this many steps."""
    max_time: float | None = None
    """Stop after this many seconds of training, and save. The schedule does not depend on it."""
    max_seq_length: int | None = None
    """Tokens per window; null: the model's block size."""
    tie_embeddings: bool | None = None
    """Use the token embedding as the language-model head too."""
    max_norm: float | None = 1.0
    """Clip the global gradient norm to this; null: no clipping."""
    min_lr: float = 6e-5
    """Learning rate at the end of the decay."""


@dataclass
class EvalArgs:
    """Validation during training (LitGPT's names)."""

    interval: int = 1000
    """Steps between validations."""
    max_new_tokens: int | None = None
    """Only LitGPT's finetuning reads it; use ``sample.max_new_tokens``."""
    max_iters: int = 100
    """Validate on this many windows. Fewer where the text has fewer; they are spread evenly over the validation
    text, and the same ones every time, whatever the micro-batch."""
    initial_validation: bool = False
    """Validate before the first step."""
    final_validation: bool = True
    """Validate after the last step."""
    evaluate_example: str | int = "first"
    """Only LitGPT's finetuning reads it."""


@dataclass
class LogArgs:
    """Names for the W&B logger (LitGPT's names)."""

    project: str | None = None
    """W&B project."""
    run: str | None = None
    """W&B run name."""
    group: str | None = None
    """W&B group."""
    teamspace: str | None = None
    """Only LitLogger reads it, which is not supported."""
    metadata: dict[str, Any] | None = None
    """Only LitLogger reads it, which is not supported."""
    log_model: bool = False
    """Only LitLogger reads it, which is not supported."""
    save_logs: bool = True
    """Only LitLogger reads it, which is not supported."""
    checkpoint_name: str | None = None
    """Only LitLogger reads it, which is not supported."""


@dataclass
class ClassSpec:
    """A class by its import path, and its arguments."""

    class_path: Name
    """Import path, such as ``torch.optim.AdamW``. A bare name is looked up where the setting belongs."""
    init_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of that class, by name."""


@dataclass
class MoEArgs:
    """How the load of the experts is kept even."""

    # The default is what was measured best on the sample corpus (tiny preset, 400,000 tokens, one seed):
    # validation loss 1.476 with the Switch loss, 1.534 with nothing, 1.618 with the bias; maximum load over mean
    # 2.61, 3.63 and 1.16. docs/concepts/balance.md has the table and the commands.
    balance: Literal["none", "switch", "bias"] = "switch"
    """How to balance the experts. ``none``: not at all. ``switch``: the Switch Transformer's auxiliary loss
    (arXiv 2101.03961). ``bias``: loss-free, a correction bias on the choice of experts (arXiv 2408.15664); the
    model's router then becomes LitGPT's sigmoid router with ``e_score_correction_bias``."""
    switch_coefficient: float = 0.01
    """Weight of the Switch loss."""
    z_coefficient: float = 0.001
    """Weight of the router z-loss (ST-MoE, arXiv 2202.08906); 0: none."""
    bias_update_speed: float = 0.001
    """How far the correction bias moves per step."""


@dataclass
class MemoryArgs:
    """What is traded for memory; docs/concepts/memory.md has what each costs and saves."""

    recompute: Literal["none", "experts", "blocks"] = "none"
    """Activations to recompute. In the backward pass, instead of keeping them: ``none``; ``experts``: their
    pre-activations; ``blocks``: everything, from the blocks' inputs."""
    step_in_backward: bool = False
    """Update each parameter during the backward pass, and free its gradient. Needs one micro-batch per step, one
    device, and ``train.max_norm: null``: nothing can wait for the norm of all gradients."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in host memory, and take its step there (CUDA)."""
    stochastic_rounding: bool = True
    """In bf16-true, round updated weights up or down at random, right on average. Rounding to nearest loses every
    update below 1/512 of a weight. ``AdamW``, ``AdamW8bit``, ``AdamW4bit`` and ``Muon`` do it."""


@dataclass
class ScheduleArgs:
    """The learning rate after the warm-up."""

    name: Literal["cosine", "constant", "wsd"] = "cosine"
    """Shape of the schedule. ``cosine``: decay to ``train.min_lr``; ``constant``; ``wsd``: constant, then linear
    decay at the end."""
    decay_fraction: float = 0.2
    """Share of all steps that ``wsd`` decays over."""


@dataclass
class CheckpointArgs:
    """How checkpoints are written and which are kept. The newest valid one is always kept."""

    asynchronous: bool = True
    """Write in the background, from a copy of weights and optimizer state in host memory."""
    keep_last: int | None = None
    """Keep this many of the newest step checkpoints; null: all."""
    keep_best: bool = True
    """Keep the one with the lowest validation loss too."""
    keep_every: int | None = None
    """Keep those whose step is a multiple of this too; null: none."""
    on_full_disk: Literal["stop", "continue"] = "stop"
    """What to do if the disk is full. ``continue``: train on without that checkpoint, and say so."""


@dataclass
class FaultArgs:
    """What a run does when something goes wrong."""

    on_non_finite: Literal["stop", "skip", "rollback"] = "stop"
    """What to do if a loss or gradient is not finite. ``stop`` before the update; ``skip`` the update;
    ``rollback``: skip, and after ``non_finite_limit`` in a row return to the last checkpoint and skip the data
    that led there."""
    non_finite_limit: int = 3
    """Bad steps in a row before ``rollback`` rolls back, or ``skip`` stops."""
    spike_factor: float | None = None
    """Treat a loss above this multiple of the mean of the last 50 as not finite; null: never."""
    rank_timeout: float = 1800.0
    """With several processes: seconds that one waits for another at most, in whatever they do together."""
    on_oom: Literal["stop", "shrink"] = "stop"
    """What to do if memory runs out. ``shrink``: halve the micro-batch, keep the global batch, and go on."""


@dataclass
class SampleArgs:
    """Texts that the model writes while it trains."""

    interval: int | None = None
    """Steps between sample texts; null: none during training."""
    final: int = 0
    """How many texts to write after the last step."""
    prompts: list[str] = field(default_factory=lambda: [""])
    """Their prompts, used in turn; an empty prompt starts a new document."""
    max_new_tokens: int = 200
    """Longest text, in tokens."""
    temperature: float = 0.8
    """Sampling temperature; 0 takes the likeliest token every time."""
    top_k: int | None = 50
    """Choose among the k likeliest tokens; null: all."""


@dataclass
class PrepareOnDemand:
    """What a training run prepares by itself where text or tokenizer are missing."""

    source: list[PathOrName] = field(default_factory=list)
    """As for ``litmoe prepare``; empty: they must exist."""
    tokenizer: PathOrName | None = None
    """As for ``litmoe prepare``."""
    vocab_size: int = 4096
    """As for ``litmoe prepare``."""
    max_documents: int | list[int | None] | None = None
    """As for ``litmoe prepare``."""


@dataclass
class TrainConfig:
    """A whole pretraining run."""

    model_name: Name | None = None
    """A LitGPT model by name, instead of ``model_config``."""
    model_config: dict[str, Any] | File | None = None
    """A model YAML, or the fields of a ``litgpt.Config``."""
    out_dir: Folder = Path("checkpoints")
    """Where checkpoints, metrics.csv and logs go."""
    precision: Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed"] | None = None
    """Number formats. Null: bf16-mixed on a GPU that supports it, else 32-true."""
    initial_checkpoint_dir: Folder | None = None
    """Start from these weights, with a fresh optimizer and data position."""
    resume: bool | Literal["auto"] | Folder = False
    """Continue a run. ``auto``: from the newest checkpoint in ``out_dir``, if there is one; true: there must be
    one; or from a checkpoint folder."""
    data: ClassSpec = field(
        default_factory=lambda: ClassSpec(
            "litmoe.data.TextFiles",
            {"train_data_path": "data/custom_text/train", "val_data_path": "data/custom_text/val"},
        )
    )
    """A ``litgpt.data.DataModule``."""
    train: TrainArgs = field(default_factory=TrainArgs)
    eval: EvalArgs = field(default_factory=EvalArgs)
    log: LogArgs = field(default_factory=LogArgs)
    optimizer: ClassSpec = field(
        default_factory=lambda: ClassSpec("torch.optim.AdamW", {"lr": 3e-4, "weight_decay": 0.01})
    )
    """``AdamW``, ``AdamW8bit``, ``AdamW4bit`` or ``Muon``. Any other of ``torch.optim`` too, or an import path."""
    moe: MoEArgs = field(default_factory=MoEArgs)
    head_z_coefficient: float = 0.0
    """Weight of the z-loss on the logits of the language-model head (PaLM, arXiv 2204.02311, uses 1e-4)."""
    memory: MemoryArgs = field(default_factory=MemoryArgs)
    schedule: ScheduleArgs = field(default_factory=ScheduleArgs)
    sample: SampleArgs = field(default_factory=SampleArgs)
    checkpoint: CheckpointArgs = field(default_factory=CheckpointArgs)
    faults: FaultArgs = field(default_factory=FaultArgs)
    prepare: PrepareOnDemand = field(default_factory=PrepareOnDemand)
    devices: int | Literal["auto"] = "auto"
    """Devices per node; ``auto``: all GPUs, or the one CPU."""
    num_nodes: int = 1
    """How many machines."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Which kind of device."""
    tokenizer_dir: Folder | None = Path("data/tokenizer")
    """The tokenizer's folder."""
    logger_name: Literal["csv", "tensorboard", "wandb", "mlflow"] = "csv"
    """Where metrics go besides ``metrics.csv``."""
    wandb_dataset: Name | None = None
    """Train on this data set of Weights & Biases, with its tokenizer. ``entity/project/name:alias``, or
    ``project/name:alias`` with ``WANDB_ENTITY``."""
    wandb_artifacts_dir: Folder = Path("data/wandb_artifacts")
    """Where a data set of Weights & Biases is downloaded to, once."""
    wandb_checkpoints: bool = False
    """With the ``wandb`` logger: upload checkpoints too, with the aliases ``latest`` and ``best``."""
    compile: bool = False
    """Compile with ``torch.compile``: attention, norms and routers. The first step then takes 10 to 60 seconds
    longer; a run without a C++ compiler or Triton trains uncompiled and says so."""
    seed: int = 42
    """Seed of the initial weights and the order of the data."""
    progress: bool | Literal["plain"] = False
    """A live view instead of a line per step, where stderr is a terminal; ``plain``: lines in any case."""
    report: bool = True
    """Write ``report.html`` into ``out_dir`` when a command has trained: the run as a page to look at."""

    def data_dir(self) -> Path:
        """The folder above ``train/`` and ``val/`` (for data modules that have a ``train_data_path``)."""
        return Path(self.data.init_args.get("train_data_path", "data/custom_text/train")).parent


def as_plain(value: Any) -> Any:
    """A configuration as nested dicts, lists, strings and numbers, ready for YAML or JSON."""
    if is_dataclass(value):
        return {f.name: as_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, Path):
        text = value.as_posix()
        return f"./{text}" if text.startswith("~") else text  # or it would be read as the home folder
    return value
