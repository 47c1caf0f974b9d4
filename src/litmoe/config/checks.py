"""Checks of a training configuration that need only its settings and, where it is known, the model's fields."""

from typing import Any, Protocol

from litmoe.config.schema import TrainArgs, TrainConfig
from litmoe.config.values import quoted
from litmoe.errors import ConfigError

LIT_LOGGER_ONLY = ("teamspace", "metadata", "log_model", "save_logs", "checkpoint_name")
LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one, and Lightning seeds NumPy too."""


class Model(Protocol):
    """The fields of a ``litgpt.Config`` that settings are checked against."""

    block_size: int
    n_expert: int


def check(config: TrainConfig) -> None:
    """Refuse what can be seen to be impossible or without effect from the settings alone.

    Raises:
        ConfigError: naming the setting, what is wrong with it, and what to do.
    """
    _check_ranges(config)
    _check_combinations(config)
    if config.memory.step_in_backward:
        _check_step_in_backward(config)
    _check_effect(config)


def _check_ranges(config: TrainConfig) -> None:
    """Every setting by itself."""
    train, moe, schedule, sample = config.train, config.moe, config.schedule, config.sample
    positive = {
        "train.save_interval": train.save_interval,
        "train.log_interval": train.log_interval,
        "train.global_batch_size": train.global_batch_size,
        "train.micro_batch_size": train.micro_batch_size,
        "train.epochs": train.epochs,
        "train.max_tokens": train.max_tokens,
        "train.max_steps": train.max_steps,
        "train.max_time": train.max_time,
        "train.max_seq_length": train.max_seq_length,
        "train.max_norm": train.max_norm,
        "eval.interval": config.eval.interval,
        "eval.max_iters": config.eval.max_iters,
        "sample.interval": sample.interval,
        "sample.max_new_tokens": sample.max_new_tokens,
        "sample.top_k": sample.top_k,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "checkpoint.keep_every": config.checkpoint.keep_every,
        "faults.non_finite_limit": config.faults.non_finite_limit,
        "num_nodes": config.num_nodes,
    }
    for name, value in positive.items():
        if value is not None and not value > 0:  # so that not a number is refused too
            raise ConfigError(f"{name} must be greater than 0, got {quoted(value)}")
    not_negative = {
        "train.lr_warmup_steps": train.lr_warmup_steps,
        "train.min_lr": train.min_lr,
        "moe.switch_coefficient": moe.switch_coefficient,
        "moe.z_coefficient": moe.z_coefficient,
        "head_z_coefficient": config.head_z_coefficient,
        "moe.bias_update_speed": moe.bias_update_speed,
        "sample.temperature": sample.temperature,
        "sample.final": sample.final,
        "seed": config.seed,
    }
    for name, value in not_negative.items():
        if value is not None and not value >= 0:
            raise ConfigError(f"{name} must not be negative, got {quoted(value)}")
    for name, value in {
        "train.lr_warmup_fraction": train.lr_warmup_fraction,
        "schedule.decay_fraction": schedule.decay_fraction,
    }.items():
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{name} must be between 0 and 1, got {quoted(value)}")
    if config.seed > LARGEST_SEED:
        raise ConfigError(f"seed must be at most {LARGEST_SEED:,}, got {quoted(config.seed)}")
    spike = config.faults.spike_factor
    if spike is not None and not spike > 1:
        raise ConfigError(
            f"faults.spike_factor must be greater than 1, got {quoted(spike)}: every loss would be a spike"
        )
    if not sample.prompts:
        raise ConfigError('sample.prompts is empty: give at least one, such as ""')
    if not (config.devices == "auto" or (isinstance(config.devices, int) and config.devices > 0)):
        raise ConfigError(f'devices must be "auto" or a number of devices, got {quoted(config.devices)}')


def _check_combinations(config: TrainConfig) -> None:
    """Settings that exclude each other, and what is missing."""
    train = config.train
    if train.lr_warmup_steps and train.lr_warmup_fraction:
        raise ConfigError("train.lr_warmup_steps and train.lr_warmup_fraction are both set: choose one")
    if train.max_tokens is None and train.max_steps is None and train.epochs is None:
        raise ConfigError("nothing says when to stop: set train.max_tokens, train.max_steps or train.epochs")
    if train.global_batch_size % train.micro_batch_size:
        raise ConfigError(
            f"train.global_batch_size {train.global_batch_size} is not a multiple of train.micro_batch_size "
            f"{train.micro_batch_size}: change one of them"
        )
    if config.model_config is None and config.model_name is None:
        raise ConfigError("no model: give model_config (a YAML file or its fields) or model_name")
    if config.initial_checkpoint_dir is not None and config.resume not in (False, "auto"):
        raise ConfigError(
            "initial_checkpoint_dir and resume are both set: one starts a new run from given weights, "
            "the other continues a run; choose one"
        )


def check_batch(train: TrainArgs, devices: int) -> None:
    """Refuse a global batch that does not divide into whole micro-batches on this many devices.

    Raises:
        ConfigError: with the numbers that do not go together.
    """
    per_step = train.micro_batch_size * devices
    if train.global_batch_size % per_step:
        raise ConfigError(
            f"train.global_batch_size {train.global_batch_size} is not a multiple of {per_step} = "
            f"train.micro_batch_size {train.micro_batch_size} x {devices} devices: change one of them"
        )


def check_model(config: TrainConfig, model: Model) -> int:
    """Refuse settings that the model does not allow.

    Returns:
        The tokens of a training window.

    Raises:
        ConfigError: naming the setting, the model's field, and what to do.
    """
    length = config.train.max_seq_length or model.block_size
    if length > model.block_size:
        raise ConfigError(
            f"train.max_seq_length {length} is longer than the model's block_size {model.block_size}: "
            "lower it, or raise block_size in the model configuration"
        )
    if config.memory.recompute == "experts" and not model.n_expert:
        raise ConfigError(
            "memory.recompute: experts has no effect on a dense model, which has none: use blocks or none"
        )
    return length


def _check_step_in_backward(config: TrainConfig) -> None:
    """Refuse what needs the gradients of all parameters at once, or twice."""
    train, faults = config.train, config.faults
    world_size = config.devices * config.num_nodes if isinstance(config.devices, int) else config.num_nodes
    excluded = [
        (
            train.max_norm is not None,
            "train.max_norm: the norm of all gradients is known only when the weights have been updated; "
            "set it to null",
        ),
        (
            train.micro_batch_size != train.global_batch_size,
            f"train.micro_batch_size {train.micro_batch_size} below train.global_batch_size "
            f"{train.global_batch_size}: a gradient is whole only after the last micro-batch; make them equal",
        ),
        (
            world_size > 1,
            "several devices: a gradient is whole only after they have exchanged it; use --devices 1",
        ),
        (
            config.precision == "16-mixed",
            "precision 16-mixed: whether the scaled gradients overflow is known only at the end; use another",
        ),
        (
            faults.on_non_finite != "stop",
            f"faults.on_non_finite {faults.on_non_finite}: a bad step is noticed only after its update; use stop",
        ),
        (
            faults.on_oom == "shrink",
            "faults.on_oom shrink: an aborted step has updated some weights already; use stop",
        ),
    ]
    for present, reason in excluded:
        if present:
            raise ConfigError(f"memory.step_in_backward excludes {reason}")


def _check_effect(config: TrainConfig) -> None:
    """Refuse a setting that was changed but that nothing reads in this combination."""
    moe, schedule = config.moe, config.schedule
    lit_logger = "only LitLogger reads it, and that logger is not supported"
    not_wandb = f"logger_name is {config.logger_name}; it needs logger_name: wandb"
    finetuning = "only LitGPT's finetuning reads it"
    # what has no effect, and why
    idle: dict[str, str] = {
        "eval.evaluate_example": finetuning,
        "eval.max_new_tokens": f"{finetuning}; use sample.max_new_tokens",
        **{f"log.{name}": lit_logger for name in LIT_LOGGER_ONLY},
    }
    if config.logger_name != "wandb":
        idle |= {f"log.{name}": not_wandb for name in ("project", "run", "group")}
        idle["wandb_checkpoints"] = not_wandb
    if moe.balance != "switch":
        idle["moe.switch_coefficient"] = f"moe.balance is {moe.balance}; it needs moe.balance: switch"
    if moe.balance != "bias":
        idle["moe.bias_update_speed"] = f"moe.balance is {moe.balance}; it needs moe.balance: bias"
    if schedule.name != "wsd":
        idle["schedule.decay_fraction"] = f"schedule.name is {schedule.name}; it needs schedule.name: wsd"
    if config.accelerator in ("cpu", "mps"):
        idle["memory.offload_optimizer"] = f"accelerator is {config.accelerator}, whose memory is the host's"
    if config.precision != "bf16-true":
        idle["memory.stochastic_rounding"] = f"precision is {config.precision}; it needs bf16-true"
    elif config.memory.offload_optimizer:
        idle["memory.stochastic_rounding"] = "with memory.offload_optimizer weights are updated in fp32"
    if config.faults.on_non_finite == "stop":
        idle["faults.non_finite_limit"] = "faults.on_non_finite is stop; it needs skip or rollback"
    if config.checkpoint.keep_last is None:
        keeps_all = "checkpoint.keep_last is null, which keeps all"
        idle |= {"checkpoint.keep_every": keeps_all, "checkpoint.keep_best": keeps_all}
    if config.model_config is not None and config.model_name is not None:
        idle["model_name"] = "model_config is given too, and decides; remove one of them"
    if config.tokenizer_dir is None and config.wandb_dataset is None:
        without = "tokenizer_dir is null, and texts need a tokenizer"
        idle |= {"sample.interval": without, "sample.final": without}

    # whether any of that was changed
    defaults = TrainConfig()
    for name, reason in idle.items():
        if _get(config, name) != _get(defaults, name):
            raise ConfigError(f"{name} has no effect here: {reason}")


def _get(config: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        config = getattr(config, name)
    return config
