"""Checks of a training configuration that need nothing but the configuration itself."""

from typing import Any

from litmoe.config import TrainArgs, TrainConfig
from litmoe.errors import ConfigError, LitMoEError

LIT_LOGGER_ONLY = ("teamspace", "metadata", "log_model", "save_logs", "checkpoint_name")


def check(config: TrainConfig) -> None:
    """Refuse what can be seen to be impossible or without effect from the settings alone.

    Raises:
        LitMoEError: naming the setting, what is wrong with it, and what to do.
    """
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
        "faults.spike_factor": config.faults.spike_factor,
        "num_nodes": config.num_nodes,
    }
    for name, value in positive.items():
        if value is not None and not value > 0:  # so that not a number is refused too
            raise LitMoEError(f"{name} must be greater than 0, got {value}")
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
            raise LitMoEError(f"{name} must not be negative, got {value}")
    for name, value in {
        "train.lr_warmup_fraction": train.lr_warmup_fraction,
        "schedule.decay_fraction": schedule.decay_fraction,
    }.items():
        if value is not None and not 0 <= value <= 1:
            raise LitMoEError(f"{name} must be between 0 and 1, got {value}")
    if not sample.prompts:
        raise LitMoEError('sample.prompts is empty: give at least one, such as ""')
    if not (config.devices == "auto" or (isinstance(config.devices, int) and config.devices > 0)):
        raise LitMoEError(f'devices must be "auto" or a number of devices, got {config.devices!r}')
    if train.lr_warmup_steps and train.lr_warmup_fraction:
        raise LitMoEError("train.lr_warmup_steps and train.lr_warmup_fraction are both set: choose one")
    if train.max_tokens is None and train.max_steps is None and train.epochs is None:
        raise LitMoEError("nothing says when to stop: set train.max_tokens, train.max_steps or train.epochs")
    if train.global_batch_size % train.micro_batch_size:
        raise LitMoEError(
            f"train.global_batch_size {train.global_batch_size} is not a multiple of train.micro_batch_size "
            f"{train.micro_batch_size}: change one of them"
        )
    if config.model_config is None and config.model_name is None:
        raise LitMoEError("no model: give model_config (a YAML file or its fields) or model_name")
    if config.initial_checkpoint_dir is not None and config.resume not in (False, "auto"):
        raise LitMoEError(
            "initial_checkpoint_dir and resume are both set: one starts a new run from given weights, "
            "the other continues a run; choose one"
        )
    if config.memory.step_in_backward:
        _check_step_in_backward(config)
    _check_effect(config)


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


def _check_step_in_backward(config: TrainConfig) -> None:
    """What needs the gradients of all parameters at one time, or twice."""
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
            f"faults.on_non_finite {faults.on_non_finite}: a bad step has been applied when it is seen; use stop",
        ),
        (
            faults.on_oom == "shrink",
            "faults.on_oom shrink: a step that is broken off has updated some weights; use stop",
        ),
    ]
    for present, reason in excluded:
        if present:
            raise LitMoEError(f"memory.step_in_backward excludes {reason}")


def _check_effect(config: TrainConfig) -> None:
    """A setting that was changed but that nothing reads in this combination is an error."""
    moe, schedule = config.moe, config.schedule
    lit_logger = "only LitLogger reads it, and that logger is not supported"
    not_wandb = f"logger_name is {config.logger_name}; it needs logger_name: wandb"
    finetuning = "only LitGPT's finetuning reads it"
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
    defaults = TrainConfig()
    for name, reason in idle.items():
        if _get(config, name) != _get(defaults, name):
            raise LitMoEError(f"{name} has no effect here: {reason}")


def _get(config: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        config = getattr(config, name)
    return config
