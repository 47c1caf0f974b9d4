"""From a configuration to a run: everything is checked before any weight is allocated."""

from pathlib import Path

import torch
from lightning.fabric import Fabric
from litgpt import Config, Tokenizer
from litgpt.data import DataModule
from litgpt.model import GroupedTopkRouter
from torch.optim import Optimizer

from litmoe.config import PrepareConfig, TrainConfig
from litmoe.config.checks import check_model
from litmoe.config.instantiate import find_class, make
from litmoe.data.corpus_record import RECORD
from litmoe.data.prepare import prepare
from litmoe.data.reading.listing import has_text
from litmoe.data.tokenizer_folder import load_tokenizer, refuse_small_vocabulary, vocabulary_size
from litmoe.distributed.collective import (
    first_before_others,
    on_first_process,
    refuse_differences,
    together,
)
from litmoe.errors import ConfigError
from litmoe.messages import Say
from litmoe.model.config import load_model_config, named_model_config, with_correction_bias
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.objective import Objective
from litmoe.optim import AdamW
from litmoe.optim.build import make_optimizer, peak_learning_rate, rounds_stochastically
from litmoe.optim.in_backward import StepInBackward
from litmoe.training.batches import Batches, connect_batches
from litmoe.training.device import start_devices
from litmoe.training.recording.events import EventLog
from litmoe.training.recording.loggers import check_logger
from litmoe.training.run import Run
from litmoe.training.schedule import Horizon, horizon
from litmoe.version import __version__
from litmoe.wandb.datasets import Dataset, fetch_dataset, point_to
from litmoe.wandb.names import check_project, parse_reference
from litmoe.wandb.run import check_run


def set_up(config: TrainConfig, events: EventLog | None = None, fabric: Fabric | None = None) -> Run:
    """Check everything, cheap checks first, then build model and optimizer.

    Args:
        config: as a person gave it; stays as it is. The run has a copy, settled for this machine.
        events: told where the run departs from the configuration, and of long work such as preparing text; the run
            keeps it. None: a silent one.
        fabric: launched, where ``config`` is settled already; None: on this process alone.

    Raises:
        LitMoEError: what cannot work, where, and what to do.
    """
    events = events or EventLog()
    # what the configuration alone can tell
    data_class = check_parts(config)
    model_config, seq_length = model_and_length(config)

    # devices
    if fabric is None:
        config, fabric = start_devices(config, events.say)
    say = events.say
    _check_devices(config, fabric)
    on_first_process(fabric, lambda: check_run(config, model_config.name))
    fabric.seed_everything(config.seed, verbose=False)

    # text and tokenizer
    dataset = None
    if config.wandb_dataset is not None:
        reference, folder = config.wandb_dataset, config.wandb_artifacts_dir
        dataset = first_before_others(fabric, lambda: fetch_dataset(reference, folder, say))
        config = point_to(config, dataset)
    init_args = {k: Path(v) if k.endswith("_path") and v else v for k, v in config.data.init_args.items()}
    module = make(data_class, section="data", **init_args)
    first_before_others(fabric, lambda: _prepare_on_demand(config, say))
    tokenizer = together(fabric, lambda: _tokenizer(config, model_config, say))
    batches = connect_batches(fabric, module, config, tokenizer, seq_length, say)

    # model and optimizer
    extent = horizon(config.train, seq_length, batches.n_windows)
    run = assemble(config, fabric, model_config, seq_length, batches, extent, tokenizer, dataset, events)
    # the identity now, and not at the first save, when the folders may have gone
    refuse_differences(fabric, _facts(run))
    return run


def check_parts(config: TrainConfig) -> type[DataModule]:
    """Refuse what cannot work whatever the devices are, before any is used; the class of the data module.

    Raises:
        LitMoEError: what cannot work, where, and what to do.
    """
    _, seq_length = model_and_length(config)
    if config.initial_checkpoint_dir is not None and not config.initial_checkpoint_dir.is_dir():
        raise ConfigError(f"initial_checkpoint_dir {config.initial_checkpoint_dir}: no such folder")
    check_logger(config)
    if config.wandb_dataset is not None:
        parse_reference(config.wandb_dataset)
    if config.log.project:
        check_project(config.log.project)
    data_class: type[DataModule] = find_class(config.data, "data", "litgpt.data", DataModule)
    _check_optimizer(config)
    if not (config.train.epochs or config.train.lr_warmup_fraction):  # else it depends on the text
        horizon(config.train, seq_length, None)
    return data_class


def model_and_length(config: TrainConfig) -> tuple[Config, int]:
    """The model that a configuration means, and the tokens of its training windows.

    Raises:
        LitMoEError: no such model, or one that conflicts with the rest of the configuration.
    """
    model_config = _model_config(config)
    return model_config, check_model(config, model_config)


def assemble(
    config: TrainConfig,
    fabric: Fabric,
    model_config: Config,
    seq_length: int,
    batches: Batches,
    horizon: Horizon,
    tokenizer: Tokenizer | None = None,
    dataset: Dataset | None = None,
    events: EventLog | None = None,
) -> Run:
    """Make a run of these parts: its model with its first weights, and its optimizer.

    Args:
        config: settled; the run keeps this object.

    Raises:
        LitMoEError: an unknown optimizer, or a learning rate that conflicts with the schedule.
    """
    # the model, with its first weights
    with fabric.init_module(empty_init=True):
        gpt = GPT(model_config)
    initialize(gpt, config.seed)
    if config.train.tie_embeddings:
        gpt.lm_head.weight = gpt.transformer.wte.weight
    gpt.max_seq_length = seq_length
    gpt.set_recompute(config.memory.recompute)
    if config.compile:
        gpt.compile_blocks()

    # what it minimises, and by which optimizer
    moe = config.moe
    objective = Objective(
        gpt,
        switch_coefficient=moe.switch_coefficient if moe.balance == "switch" else 0.0,
        z_coefficient=moe.z_coefficient,
        head_z_coefficient=config.head_z_coefficient,
    )
    optimizer = make_optimizer(config.optimizer, gpt, str(config.precision), config.memory, config.seed)
    if fabric.world_size > 1 and rounds_stochastically(optimizer) and not isinstance(optimizer, AdamW):
        raise ConfigError(
            f"optimizer {config.optimizer.class_path}: its stochastic rounding differs between devices after a "
            "resume: use AdamW8bit or AdamW4bit, or set memory.stochastic_rounding: false"
        )
    peak_lr = _peak_rate(config, optimizer)

    # both as Fabric wraps them for the devices
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
        horizon=horizon,
        gpt=gpt,
        objective=wrapped,
        optimizer=wrapped_optimizer,
        peak_lr=peak_lr,
        in_backward=StepInBackward(optimizer) if config.memory.step_in_backward else None,
        dataset=dataset,
        events=events or EventLog(),
    )


def _check_optimizer(config: TrainConfig) -> None:
    """Refuse an optimizer that cannot be made, by making it for a model of a few hundred weights."""
    sizes = {"block_size": 8, "n_layer": 1, "n_embd": 8, "n_head": 1, "vocab_size": 8, "padded_vocab_size": 8}
    trial = GPT(Config(**sizes, mlp_class_name="LLaMAMLP", intermediate_size=8, norm_class_name="RMSNorm"))
    _peak_rate(config, make_optimizer(config.optimizer, trial, str(config.precision), config.memory))


def _peak_rate(config: TrainConfig, optimizer: Optimizer) -> float:
    """The configured learning rate, which the decay must not end above."""
    peak = peak_learning_rate(optimizer)
    if config.train.min_lr > peak and config.schedule.name != "constant":
        raise ConfigError(
            f"train.min_lr {config.train.min_lr} is above the learning rate {peak}: lower it, or raise "
            "optimizer.init_args.lr"
        )
    return peak


def _check_devices(config: TrainConfig, fabric: Fabric) -> None:
    """Refuse what the number or kind of the devices does not allow."""
    if config.memory.offload_optimizer and fabric.device.type != "cuda":
        raise ConfigError(
            f"memory.offload_optimizer has no effect on {fabric.device.type}, whose memory is the host's: "
            "leave it out"
        )
    if config.memory.step_in_backward and fabric.world_size > 1:
        raise ConfigError(
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


def _prepare_on_demand(config: TrainConfig, say: Say) -> None:
    """Make text and tokenizer by the ``prepare`` section where they are missing."""
    wanted, data_dir = config.prepare, config.data_dir()
    if not wanted.source or config.tokenizer_dir is None:
        return
    there = has_text(data_dir / "train")
    if there and (config.tokenizer_dir / "tokenizer.json").is_file():
        return
    own = there and not (data_dir / RECORD).is_file()  # somebody's text, to be used as it is
    prepare(
        PrepareConfig(
            source=[] if own else wanted.source,
            data_dir=data_dir,
            tokenizer=wanted.tokenizer,
            vocab_size=wanted.vocab_size,
            tokenizer_dir=config.tokenizer_dir,
            max_documents=None if own else wanted.max_documents,
        ),
        say,
    )


def _tokenizer(config: TrainConfig, model_config: Config, say: Say) -> Tokenizer | None:
    """The run's tokenizer, which must fit the model's vocabulary."""
    if config.tokenizer_dir is None:
        return None
    tokenizer = load_tokenizer(config.tokenizer_dir, say)
    size = vocabulary_size(tokenizer.processor)
    refuse_small_vocabulary(size, model_config.padded_vocab_size, config.tokenizer_dir)
    return tokenizer


def _facts(run: Run) -> dict[str, object]:
    """What all processes of a run must agree in."""
    identity = {name: value for name, value in run.identity.items() if name != "model"}
    return {
        "the version of litmoe": __version__,
        "the version of torch": torch.__version__,
        **{f"the model's {name}": value for name, value in run.identity["model"].items()},
        **{f"the {name}": value for name, value in identity.items()},
        "the number of training windows": run.batches.n_windows,
        "the steps of the run": run.horizon.steps,
        "the micro-batch": run.micro_batch_size,
    }
