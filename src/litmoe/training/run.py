"""Everything a run needs, brought together and checked before any weight is allocated."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from litgpt import Config, Tokenizer
from litgpt.data import DataModule
from litgpt.model import GroupedTopkRouter
from torch import Tensor

from litmoe.config import PrepareConfig, TrainConfig
from litmoe.config.checks import check_batch
from litmoe.config.instantiate import find_class, make
from litmoe.data.prepare import prepare
from litmoe.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from litmoe.data.windows import Batch
from litmoe.errors import LitMoEError
from litmoe.model.config import load_model_config, named_model_config, with_correction_bias
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.objective import Objective
from litmoe.optim import AdamW
from litmoe.optim.build import make_optimizer, peak_learning_rate, rounds_stochastically
from litmoe.optim.in_backward import StepInBackward
from litmoe.training.batches import Batches, connect_batches
from litmoe.training.compiling import settle_compile
from litmoe.training.schedule import Horizon, horizon
from litmoe.wandb.datasets import Dataset, check_reference, fetch_dataset, point_to
from litmoe.wandb.run import model_artifact_name


@dataclass
class State:
    """What changes from step to step, besides weights and optimizer."""

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
    """Steps whose update was left out."""
    bad_in_a_row: int = 0
    """Steps left out just now, one after another."""
    rollbacks: int = 0
    """Times that the run went back to a checkpoint."""
    rolled_back_to: int | None = None
    """The step it last went back to."""
    recent_losses: list[float] = field(default_factory=list)
    """Of the last steps, where spikes are looked for."""


@dataclass
class Run:
    """The parts of a run, fixed once it has begun, and its state."""

    config: TrainConfig
    fabric: Fabric
    model_config: Config
    tokenizer: Tokenizer | None
    batches: Batches
    seq_length: int
    plan: Horizon
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
    state: State = field(default_factory=State)
    _data: Generator[Batch, None, None] | None = None

    def data(self) -> Iterator[Batch]:
        """This device's micro-batches from the present position on."""
        if self._data is None:
            self._data = self.batches.training(self.state.samples)
        return self._data

    def restart_data(self) -> None:
        """Read anew from the present position: it, or the micro-batch, has changed."""
        self.close()

    def close(self) -> None:
        """Stop reading ahead."""
        if self._data is not None:
            self._data.close()
            self._data = None

    @property
    def accumulation(self) -> int:
        """Micro-batches per step on each device."""
        train = self.config.train
        return train.global_batch_size // (train.micro_batch_size * self.fabric.world_size)

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


def set_up(config: TrainConfig, say: Callable[[str], None] = print) -> Run:
    """Check everything, in the order of what it costs, then build model and optimizer.

    ``say`` gets what is done otherwise than the configuration has it.

    Raises:
        LitMoEError: what cannot work, where, and what to do.
    """
    model_config, seq_length = model_and_length(config)
    if config.initial_checkpoint_dir is not None and not config.initial_checkpoint_dir.is_dir():
        raise LitMoEError(f"initial_checkpoint_dir {config.initial_checkpoint_dir}: no such folder")
    data_class = find_class(config.data, "data", "litgpt.data", DataModule)
    if config.wandb_dataset is not None:
        check_reference(config.wandb_dataset)
    if config.wandb_checkpoints:
        model_artifact_name(model_config.name)

    fabric = make_fabric(config, say)
    fabric.launch()
    settle_compile(config, fabric.device, say)
    check_batch(config.train, fabric.world_size)
    _check_memory(config, fabric)
    fabric.seed_everything(config.seed, verbose=False)
    dataset = None
    if config.wandb_dataset is not None:
        with fabric.rank_zero_first():
            dataset = fetch_dataset(config.wandb_dataset, config.wandb_artifacts_dir, fabric.print)
        point_to(config, dataset)
    init_args = {k: Path(v) if k.endswith("_path") and v else v for k, v in config.data.init_args.items()}
    module = make(data_class, section="data", **init_args)
    with fabric.rank_zero_first():
        _prepare_on_demand(config, fabric.print)
    tokenizer = load_tokenizer(config.tokenizer_dir) if config.tokenizer_dir is not None else None
    if tokenizer is not None and (size := _largest_id(tokenizer) + 1) > model_config.padded_vocab_size:
        raise LitMoEError(
            f"{config.tokenizer_dir}: the tokenizer has {size:,} tokens, the model's vocabulary only "
            f"{model_config.padded_vocab_size:,}: raise vocab_size in the model configuration"
        )
    batches = connect_batches(fabric, module, config, tokenizer, seq_length)
    plan = horizon(config.train, seq_length, batches.n_windows)
    run = assemble(config, fabric, model_config, seq_length, batches, plan, tokenizer, dataset)
    assert run.identity  # now, and not at the first save, when the folders may have gone
    return run


def model_and_length(config: TrainConfig) -> tuple[Config, int]:
    """The model that a configuration means, and the tokens of its training windows.

    Raises:
        LitMoEError: no such model, or one that does not go with the rest of the configuration.
    """
    model_config = _model_config(config)
    seq_length = config.train.max_seq_length or model_config.block_size
    if seq_length > model_config.block_size:
        raise LitMoEError(
            f"train.max_seq_length {seq_length} is longer than the model's block_size {model_config.block_size}: "
            "lower it, or raise block_size in the model configuration"
        )
    if config.memory.recompute == "experts" and not model_config.n_expert:
        raise LitMoEError(
            "memory.recompute: experts has no effect on a dense model, which has none: use blocks or none"
        )
    return model_config, seq_length


def assemble(
    config: TrainConfig,
    fabric: Fabric,
    model_config: Config,
    seq_length: int,
    batches: Batches,
    plan: Horizon,
    tokenizer: Tokenizer | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """The run of these parts: its model with its first weights, and its optimizer.

    Raises:
        LitMoEError: an optimizer that there is not, or a learning rate that does not go with the schedule.
    """
    with fabric.init_module(empty_init=True):
        gpt = GPT(model_config)
    initialize(gpt, config.seed)
    if config.train.tie_embeddings:
        gpt.lm_head.weight = gpt.transformer.wte.weight
    gpt.max_seq_length = seq_length
    gpt.set_recompute(config.memory.recompute)
    if config.compile:
        gpt.compile_blocks()
    moe = config.moe
    objective = Objective(
        gpt,
        switch_coefficient=moe.switch_coefficient if moe.balance == "switch" else 0.0,
        z_coefficient=moe.z_coefficient,
        head_z_coefficient=config.head_z_coefficient,
    )
    optimizer = make_optimizer(config.optimizer, gpt, str(config.precision), config.memory, config.seed)
    if fabric.world_size > 1 and rounds_stochastically(optimizer) and not isinstance(optimizer, AdamW):
        raise LitMoEError(
            f"optimizer {config.optimizer.class_path}: its stochastic rounding differs between devices after a "
            "resume: use AdamW8bit or AdamW4bit, or set memory.stochastic_rounding: false"
        )
    peak_lr = peak_learning_rate(optimizer)
    if config.train.min_lr > peak_lr and config.schedule.name != "constant":
        raise LitMoEError(
            f"train.min_lr {config.train.min_lr} is above the learning rate {peak_lr}: lower it, or raise "
            "optimizer.init_args.lr"
        )
    wrapped, wrapped_optimizer = fabric.setup(objective, optimizer)
    for module in gpt.modules():
        if isinstance(module, GroupedTopkRouter):
            # bf16-true made it bf16, in which steps of 0.001 are lost as soon as the bias passes 0.25.
            module.e_score_correction_bias = module.e_score_correction_bias.float()
    return Run(
        config=config,
        fabric=fabric,
        model_config=model_config,
        tokenizer=tokenizer,
        batches=batches,
        seq_length=seq_length,
        plan=plan,
        gpt=gpt,
        objective=wrapped,
        optimizer=wrapped_optimizer,
        peak_lr=peak_lr,
        in_backward=StepInBackward(optimizer) if config.memory.step_in_backward else None,
        dataset=dataset,
    )


def _check_memory(config: TrainConfig, fabric: Fabric) -> None:
    """What of the memory section the devices do not allow."""
    if config.memory.offload_optimizer and fabric.device.type != "cuda":
        raise LitMoEError(
            f"memory.offload_optimizer has no effect on {fabric.device.type}, whose memory is the host's: "
            "leave it out"
        )
    if config.memory.step_in_backward and fabric.world_size > 1:
        raise LitMoEError(
            f"memory.step_in_backward: with {fabric.world_size} devices a gradient is whole only after they have "
            "exchanged it: use --devices 1, or leave it out"
        )


def _model_config(config: TrainConfig) -> Config:
    if config.model_config is None:
        assert config.model_name is not None  # check() has seen to it
        model_config = named_model_config(config.model_name)
    else:
        model_config = load_model_config(config.model_config)
    if config.moe.balance == "bias" and model_config.mlp_class_name == "LLaMAMoE":
        return with_correction_bias(model_config)
    return model_config


def make_fabric(config: TrainConfig, say: Callable[[str], None]) -> Fabric:
    """Fabric for the chosen devices; settles the precision in the configuration."""
    accelerator = config.accelerator
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise LitMoEError("accelerator cuda: torch sees no CUDA device here: use --accelerator cpu")
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise LitMoEError("accelerator mps: torch sees no Apple GPU here: use --accelerator cpu")
    on_cuda = torch.cuda.is_available() and accelerator in ("auto", "cuda")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not on_cuda)
    settle_precision(config, "cuda" if on_cuda else "cpu" if on_cpu else "mps", say)
    devices = config.devices
    if devices == "auto":
        devices = torch.cuda.device_count() if on_cuda else 1
    if on_cuda and int(devices) > torch.cuda.device_count():
        raise LitMoEError(f"devices {devices}: torch sees only {torch.cuda.device_count()} CUDA devices here")
    several = int(devices) * config.num_nodes > 1
    return Fabric(
        accelerator=accelerator,
        devices=int(devices),
        num_nodes=config.num_nodes,
        strategy="ddp" if several else "auto",
        precision=config.precision,
    )


def settle_precision(config: TrainConfig, device_type: str, say: Callable[[str], None]) -> None:
    """Choose the precision where the configuration leaves it open, and another where the device lacks it.

    Raises:
        LitMoEError: a precision that the device cannot do.
    """
    on_cuda = device_type == "cuda"
    if config.precision is None:
        config.precision = "bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported() else "32-true"
    if config.precision == "16-mixed" and not on_cuda:
        raise LitMoEError("precision 16-mixed needs a CUDA device: use bf16-mixed or 32-true")
    if device_type == "cpu" and config.precision in ("bf16-mixed", "bf16-true") and not _cpu_has_bf16():
        # Without instructions for it torch multiplies bf16 matrices element by element: the tiny preset takes ten
        # times as long, MoE-200M took minutes for a micro-batch of 64 tokens.
        lacks = f"precision {config.precision}: this CPU has no instructions for bf16"
        if config.precision == "bf16-mixed":
            say(f"{lacks}; 32-true is used instead, which is faster")
            config.precision = "32-true"
        else:
            say(f"{lacks}, and is many times slower with it than with 32-true, which takes twice the memory")


def _cpu_has_bf16() -> bool:
    """Whether oneDNN, which multiplies torch's matrices on a CPU, has bf16 kernels here."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _prepare_on_demand(config: TrainConfig, say: Callable[[str], None]) -> None:
    """Make text and tokenizer by the ``prepare`` section where they are missing."""
    wanted, data_dir = config.prepare, config.data_dir()
    if not wanted.source or config.tokenizer_dir is None:
        return
    if any((data_dir / "train").glob("*.txt")) and (config.tokenizer_dir / "tokenizer.json").is_file():
        return
    prepare(
        PrepareConfig(
            source=wanted.source,
            data_dir=data_dir,
            tokenizer=wanted.tokenizer,
            vocab_size=wanted.vocab_size,
            tokenizer_dir=config.tokenizer_dir,
            max_documents=wanted.max_documents,
        ),
        say,
    )


def _largest_id(tokenizer: Tokenizer) -> int:
    if tokenizer.backend == "huggingface":
        return max(tokenizer.processor.get_vocab(with_added_tokens=True).values())
    return int(tokenizer.vocab_size) - 1
