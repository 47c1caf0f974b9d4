"""What a run says of itself before it begins."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from litmoe.config import TrainArgs
from litmoe.messages import readable
from litmoe.model.advice import advice
from litmoe.model.flops import flops_per_token, num_active_params, num_params
from litmoe.model.moe.experts import Experts
from litmoe.model.precision import product_dtype
from litmoe.optim.build import describe
from litmoe.training.recording.samples import prompt_notes
from litmoe.training.run import Run
from litmoe.training.saving import host_bytes
from litmoe.training.schedule import decay_steps, learning_rate
from litmoe.training.threads import thread_advice


def announce(run: Run, resume_from: Path | None) -> None:
    """Say the size, extent, cost, device and places of a run, one fact a line, and what is odd about them."""
    lines = {
        "model": _model(run),
        "step": _step(run),
        "run": _extent(run),
        "compute": _compute(run),
        "device": _device(run),
        "balance": _balance(run),
        "optimizer": describe(run.optimizer.optimizer, str(run.config.precision)),
        "schedule": _schedule(run),
        "start": _start(run, resume_from),
        "writes to": str(run.config.out_dir) + _in_the_background(run),
    }
    if saved := _saved(run):
        lines["memory"] = saved
    if run.config.compile:
        lines["compile"] = "attention, norms and routers; the first step waits for the compiler"
    for name, text in lines.items():
        run.say(f"{name:<10} {text}")
    for note in _notes(run):
        run.say(f"note: {note}")


def _model(run: Run) -> str:
    model = run.model_config
    tied = model.padded_vocab_size * model.n_embd if run.config.train.tie_embeddings else 0
    total, active = num_params(model) - tied, num_active_params(model) - tied
    return f"{model.name or 'unnamed'}: {total:,} parameters, {active:,} active per token"


def _step(run: Run) -> str:
    return (
        f"{run.horizon.tokens_per_step:,} tokens: {run.config.train.global_batch_size} windows of "
        f"{run.seq_length}, {run.accumulation} micro-batch(es) of {run.micro_batch_size} on "
        f"{run.fabric.world_size} device(s)"
    )


def _extent(run: Run) -> str:
    steps = run.horizon.steps
    extent = f"{steps:,} steps, {steps * run.horizon.tokens_per_step:,} tokens"
    if n_windows := run.batches.n_windows:
        passes = steps * run.config.train.global_batch_size / n_windows
        extent += f" ({passes:.2f} passes over {n_windows:,} windows of text)"
    return extent


def _compute(run: Run) -> str:
    per_token = flops_per_token(run.model_config, run.seq_length)
    tokens = run.horizon.steps * run.horizon.tokens_per_step
    return f"{per_token / 1e9:.4g} GFLOP per token, {per_token * tokens / 1e12:,.4g} TFLOP in all"


def _device(run: Run) -> str:
    device = run.fabric.device
    name = str(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        name = f"CPU, {torch.get_num_threads()} threads"
    return f"{name}; precision {run.config.precision}" + _experts(run)


def _schedule(run: Run) -> str:
    """The learning rate over the run, in the order of time."""
    horizon, schedule, min_lr = run.horizon, run.config.schedule, run.config.train.min_lr
    warmup = f"warm-up over {horizon.warmup_steps:,} steps, then " if horizon.warmup_steps else ""
    if schedule.name == "constant" or horizon.warmup_steps == horizon.steps:
        return f"{warmup}learning rate {run.peak_lr:g} to the end"
    decay = f"decays to {min_lr:g} at step {horizon.steps:,}"
    if schedule.name == "wsd":
        steps = decay_steps(horizon, schedule)
        return f"{warmup}learning rate {run.peak_lr:g}, and over the last {steps:,} steps {decay}"
    return f"{warmup}learning rate {run.peak_lr:g} {decay} (cosine)"


def _start(run: Run, resume_from: Path | None) -> str:
    if resume_from is None:
        folder = run.config.initial_checkpoint_dir
        return "new run" if folder is None else f"new run from the weights of {folder}"
    state = run.state
    start = f"resumes from {resume_from} (step {state.step})"
    if state.learning_rate is None or state.step >= run.horizon.steps:
        return start
    # What the schedule as it is now would have had for the last step differs where the schedule has changed.
    planned, coming = (_rate(run, step) for step in (state.step - 1, state.step))
    if math.isclose(planned, state.learning_rate, rel_tol=0.01):
        return start
    rates = f"from {state.learning_rate:.3g} to {coming:.3g}"
    return f"{start}; the learning rate goes {rates}, because the schedule has changed"


def _rate(run: Run, step: int) -> float:
    return learning_rate(step, run.peak_lr, run.config.train.min_lr, run.horizon, run.config.schedule)


def _notes(run: Run) -> Iterator[str]:
    """What a person may not have meant, and would see too late."""
    config, horizon = run.config, run.horizon
    n_windows, batch = run.batches.n_windows, config.train.global_batch_size
    if n_windows is not None and batch > n_windows:
        yield (
            f"train.global_batch_size {batch} is more than the {n_windows} windows of the text: every step reads "
            "some of them several times"
        )
    if horizon.asked_warmup_steps > horizon.steps:
        yield (
            f"the warm-up of {horizon.asked_warmup_steps:,} steps is longer than the run of {horizon.steps:,}: "
            f"the learning rate rises to the end, to {run.peak_lr:g}; lower train.lr_warmup_steps"
        )
    flat = config.schedule.name == "constant" or horizon.warmup_steps == horizon.steps
    if flat and config.train.min_lr not in (TrainArgs().min_lr, run.peak_lr):
        yield f"train.min_lr {config.train.min_lr:g} has no effect: the learning rate does not decay"
    yield from advice(run.model_config, config.moe)
    yield from prompt_notes(run)
    if run.fabric.device.type == "cpu" and (crowded := thread_advice(torch.get_num_threads())) is not None:
        yield crowded


def _experts(run: Run) -> str:
    """How the experts are multiplied."""
    experts = next((module for module in run.gpt.modules() if isinstance(module, Experts)), None)
    if experts is None:
        return ""
    backend = experts.backend_for(run.fabric.device, product_dtype(str(run.config.precision)))
    return "; " + {"loop": "experts one by one", "grouped": "experts by grouped products"}[backend]


def _saved(run: Run) -> str:
    """What is done to save memory, where anything is."""
    memory = run.config.memory
    recompute = {
        "none": "",
        "experts": "the experts' pre-activations",
        "blocks": "the activations of all blocks",
    }
    parts = [
        f"makes {recompute[memory.recompute]} again in the backward" if memory.recompute != "none" else "",
        "updates each parameter in the backward, without clipping" if memory.step_in_backward else "",
    ]
    return "; ".join(part for part in parts if part)


def _in_the_background(run: Run) -> str:
    """How checkpoints are written, and the host memory that this takes."""
    size = host_bytes(run)
    return f", in the background from a copy of {readable(size)} in host memory" if size else ""


def _balance(run: Run) -> str:
    moe = run.config.moe
    if not run.model_config.n_expert:
        return "a dense model, no experts to balance"
    how = {
        "none": "left to the data",
        "switch": f"Switch loss, coefficient {moe.switch_coefficient}",
        "bias": f"correction bias, speed {moe.bias_update_speed}; sigmoid router (n_expert_groups "
        f"{run.model_config.n_expert_groups}) in the checkpoint's model_config.yaml",
    }[moe.balance]
    return how + (f"; router z-loss, coefficient {moe.z_coefficient}" if moe.z_coefficient else "")
