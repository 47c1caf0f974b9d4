"""What ``litmoe plan`` prints: one fact a line, and the memory as a table."""

from pathlib import Path

from litmoe.checkpoint import free_bytes
from litmoe.config import TrainConfig, as_plain
from litmoe.config.checks import check
from litmoe.config.dialect import to_yaml
from litmoe.diagnostics.fit import applied, changes, fit, settings
from litmoe.diagnostics.measure import Measured
from litmoe.diagnostics.plan import MARGIN, Plan, make_plan
from litmoe.errors import LitMoEError
from litmoe.files import whole_file
from litmoe.messages import Say, readable, silent


def show(plan: Plan, say: Say) -> None:
    """Print a plan, one fact a line, and the memory as a table."""
    config, train, memory = plan.config, plan.config.train, plan.memory
    on = f"{plan.devices} x {plan.device.name}" if plan.devices > 1 else plan.device.name
    micro_batches = train.global_batch_size // (train.micro_batch_size * plan.devices * config.num_nodes)
    name = plan.model_config.name or "unnamed"
    say(f"model      {name}: {plan.n_params:,} parameters, {plan.n_active_params:,} active per token")
    say(
        f"step       {micro_batches} micro-batch(es) of {train.micro_batch_size} x {plan.seq_length} tokens; "
        f"{config.precision}, {config.optimizer.class_path}, recompute {config.memory.recompute}"
    )
    say(f"compute    {plan.flops_per_token / 1e9:.4g} GFLOP per token{_in_all(plan)}")
    say(f"disk       {_disk(plan)}")
    if host := _host_bytes(plan):
        say(f"host       {readable(host)} of its memory, for checkpoint staging{_offloaded(plan)}")
    for line in plan.advice:
        say(f"note: {line}")
    say(f"\nmemory of {on}, when most of it is in use (in {memory.moment}):")
    shown = {part: size for part, size in memory.parts.items() if size >= memory.total / 1000}
    for part, size in shown.items():
        say(f"  {part:<32}{readable(size):>10}")
    say(f"  {'in all':<32}{readable(memory.total):>10}{_verdict(plan)}")


def show_fit(plan: Plan, file: Path | None, say: Say) -> Plan:
    """Find and print the cheapest changes that make a run fit, and write the configuration to a file.

    Returns:
        The plan with them.
    """
    say("\nlooking for the cheapest changes that make it fit ...")
    taken, fitting = fit(  # silent: the plan has said it once
        plan.config, lambda config: make_plan(config, plan.device, say=silent), list(changes(plan))
    )
    if not fitting.fits:
        raise LitMoEError(
            f"even with all that saves memory it needs {readable(fitting.memory.total)} of {plan.device.name}: "
            "choose a smaller model"
        )
    say(f"with these it needs {readable(fitting.memory.total)}{_verdict(fitting)}:")
    for change in taken:
        say(f"  {change.cost}")
    say("\n" + to_yaml(settings(taken)).strip())
    if file is not None:
        write(applied(taken, plan.config), file, say)
    return fitting


def write(config: TrainConfig, file: Path, say: Say) -> None:
    """Write a configuration as YAML for ``--config``.

    Raises:
        LitMoEError: the file cannot be written.
    """
    check(config)
    with whole_file(file) as building:
        building.write_text(to_yaml(as_plain(config)), encoding="utf-8")
    say(f"\nwritten to {file}: train with --config {file}")


def show_measured(plan: Plan, measured: Measured, say: Say) -> None:
    """Print what was measured, beside the plan."""
    say(
        f"\nmeasured on this device: {measured.tokens_per_second:,.0f} tokens per second{_time(plan, measured)}"
    )
    say(
        f"allocated by torch at most {readable(measured.peak_bytes)}; the plan has {readable(plan.allocated)}"
    )


def _verdict(plan: Plan) -> str:
    if plan.device.n_bytes is None:
        return ""
    verdict = "fits" if plan.fits else "does not fit"
    if not plan.fits and plan.memory.total <= plan.device.n_bytes:
        verdict = f"may not fit, the plan can be off by {MARGIN:.0%}"
    return f" of {readable(plan.device.n_bytes)}: {verdict}"


def _in_all(plan: Plan) -> str:
    if plan.horizon is None:
        return "; how many tokens depends on the text"
    tokens = plan.horizon.steps * plan.horizon.tokens_per_step
    extent = f"{plan.horizon.steps:,} steps, {tokens:,} tokens"
    return f", {plan.flops_per_token * tokens / 1e12:,.0f} TFLOP in all: {extent}"


def _disk(plan: Plan) -> str:
    size, count = plan.checkpoint_bytes, plan.checkpoints
    if count is None:
        return f"{readable(size)} for each checkpoint"
    free = free_bytes(plan.config.out_dir)
    there = "" if free is None else f"; {readable(free)} free{'' if free >= count * size else ': too little'}"
    return f"{readable(count * size)} for {count:,} checkpoint(s) of {readable(size)} at most{there}"


def _host_bytes(plan: Plan) -> int:
    return plan.memory.host + (plan.checkpoint_bytes if plan.config.checkpoint.asynchronous else 0)


def _offloaded(plan: Plan) -> str:
    return f" and for the optimizer ({readable(plan.memory.host)})" if plan.memory.host else ""


def _time(plan: Plan, measured: Measured) -> str:
    if plan.horizon is None:
        return ""
    hours = plan.horizon.steps * plan.horizon.tokens_per_step / measured.tokens_per_second / 3600
    return f", {f'{hours:,.1f} hours' if hours >= 1 else f'{hours * 60:.1f} minutes'} for the whole run"
