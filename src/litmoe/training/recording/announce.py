"""What a run says of itself before it begins."""

from pathlib import Path

import torch

from litmoe.messages import readable
from litmoe.model.flops import flops_per_token, num_active_params, num_params
from litmoe.model.moe.experts import Experts
from litmoe.model.precision import product_dtype
from litmoe.optim.build import describe
from litmoe.training.run import Run
from litmoe.training.saving import host_bytes


def announce(run: Run, resume_from: Path | None) -> None:
    """Say the size, extent, cost, device and places of a run, one fact a line."""
    config, model, horizon, fabric = run.config, run.model_config, run.horizon, run.fabric
    tied = model.padded_vocab_size * model.n_embd if config.train.tie_embeddings else 0
    total, active = num_params(model) - tied, num_active_params(model) - tied
    per_token = flops_per_token(model, run.seq_length)
    device = str(fabric.device)
    if fabric.device.type == "cuda":
        device = torch.cuda.get_device_name(fabric.device)
    elif fabric.device.type == "cpu":
        device = f"CPU, {torch.get_num_threads()} threads"
    tokens = horizon.steps * horizon.tokens_per_step
    extent = f"{horizon.steps:,} steps, {tokens:,} tokens"
    if n_windows := run.batches.n_windows:
        passes = horizon.steps * config.train.global_batch_size / n_windows
        extent += f" ({passes:.2f} passes over {n_windows:,} windows of text)"
    start = f"resumes from {resume_from} (step {run.state.step})" if resume_from else "new run"
    if config.initial_checkpoint_dir is not None and not resume_from:
        start = f"new run from the weights of {config.initial_checkpoint_dir}"
    lines = {
        "model": f"{model.name or 'unnamed'}: {total:,} parameters, {active:,} active per token",
        "step": f"{horizon.tokens_per_step:,} tokens: {config.train.global_batch_size} windows of "
        f"{run.seq_length}, {run.accumulation} micro-batch(es) of {run.micro_batch_size} on "
        f"{fabric.world_size} device(s)",
        "run": extent,
        "compute": f"{per_token / 1e9:.4g} GFLOP per token, {per_token * tokens / 1e12:,.4g} TFLOP in all",
        "device": f"{device}; precision {config.precision}" + _experts(run),
        "balance": _balance(run),
        "optimizer": describe(run.optimizer.optimizer, str(config.precision)),
        "start": start,
        "writes to": str(config.out_dir) + _in_the_background(run),
    }
    if saved := _saved(run):
        lines["memory"] = saved
    if config.compile:
        lines["compile"] = "attention, norms and routers; the first step waits for the compiler"
    for name, text in lines.items():
        run.say(f"{name:<10} {text}")


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
