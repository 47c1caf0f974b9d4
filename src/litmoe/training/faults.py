"""Steps that must not be applied, and memory that runs out: what is done about them."""

import math
from dataclasses import dataclass

import torch

from litmoe import checkpoint
from litmoe.distributed.collective import on_first_process
from litmoe.errors import LitMoEError
from litmoe.training import resume
from litmoe.training.recording.metrics import StepFigures
from litmoe.training.run import Run

ADVICE = "resume from the last checkpoint with a lower learning rate or a longer warm-up"
SPIKE_WINDOW = 50  # losses that a spike is compared with


@dataclass(frozen=True)
class Problem:
    """Why the gradients of a step must not be applied."""

    kind: str
    """``skip``: something is not finite; ``spike``: the loss is far above what it was."""
    reason: str


def problem_of(run: Run, figures: StepFigures) -> Problem | None:
    """What speaks against applying the gradients of this step; None if nothing does.

    The figures are those of all devices together, so all of them decide alike.
    """
    if not math.isfinite(figures.train_loss):
        return Problem("skip", f"the loss is {figures.train_loss}")
    # In 16-mixed an overflow of the scaled gradients is part of the method: the scaler skips that step.
    if (
        figures.grad_norm is not None
        and not math.isfinite(figures.grad_norm)
        and run.config.precision != "16-mixed"
    ):
        return Problem("skip", f"the gradient norm is {figures.grad_norm}")
    factor, recent = run.config.faults.spike_factor, run.state.recent_losses
    if factor is not None:
        if len(recent) == SPIKE_WINDOW and figures.train_loss > factor * sum(recent) / SPIKE_WINDOW:
            mean = sum(recent) / SPIKE_WINDOW
            reason = f"the loss {figures.train_loss:.3f} is above {factor} times the mean {mean:.3f} of late"
            return Problem("spike", reason)
        run.state.recent_losses = [*recent, figures.train_loss][-SPIKE_WINDOW:]
    return None


def skip_step(run: Run, problem: Problem) -> bool:
    """Skip a bad step, by the configured policy; returns whether it is time to roll back.

    Raises:
        LitMoEError: the policy is to stop, or there were too many in a row.
    """
    state, faults = run.state, run.config.faults
    step, advice = state.step + 1, ADVICE
    if faults.on_non_finite == "stop":
        otherwise = "" if run.in_backward else ", or with --faults.on-non-finite skip or rollback"
        raise LitMoEError(f"step {step}: {problem.reason}: {advice}{otherwise}")
    run.optimizer.zero_grad()
    state.skipped_steps += 1
    state.bad_in_a_row += 1
    in_a_row = state.bad_in_a_row
    message = f"step {step}: {problem.reason}; skipped ({in_a_row} in a row)"
    run.events.add(problem.kind, message, step=step, figures={"in_a_row": in_a_row})
    if state.bad_in_a_row < faults.non_finite_limit:
        return False
    if faults.on_non_finite == "skip":
        raise LitMoEError(
            f"step {step}: {problem.reason}, and so were {state.bad_in_a_row} steps in a row: {advice}"
        )
    return True


def roll_back(run: Run, problem: Problem) -> None:
    """Go back to the newest checkpoint: weights, optimizer, step count; the data goes on after the bad steps.

    Raises:
        LitMoEError: no checkpoint to roll back to, or a second rollback to the same one.
    """
    before, advice = run.state, ADVICE
    found = on_first_process(run.fabric, lambda: checkpoint.newest(run.config.out_dir, run.say))
    if found is None:
        raise LitMoEError(
            f"step {before.step + 1}: {problem.reason}, and no checkpoint to roll back to: {advice}"
        )
    resume.load(run, found)
    if run.state.step == before.rolled_back_to:
        raise LitMoEError(
            f"step {before.step + 1}: {problem.reason}, again after rolling back to {found}: {advice}"
        )
    state = run.state
    state.samples = before.samples + run.config.train.global_batch_size
    state.skipped_steps, state.rollbacks = before.skipped_steps, before.rollbacks + 1
    state.rolled_back_to = state.step
    state.micro_batch_size = before.micro_batch_size
    run.events.add(
        "rollback",
        f"rolled back to {found} (step {state.step}); the data goes on at sample {state.samples:,}",
        step=before.step + 1,
        figures={"to_step": state.step, "samples": state.samples},
    )


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether torch ran out of the memory of any device, the CPU's included."""
    phrases = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        phrase in str(error) for phrase in phrases
    )


def make_room(run: Run, error: Exception) -> None:
    """After memory ran out: halve the micro-batch by the configured policy, with the same global batch and data.

    Raises:
        LitMoEError: the policy is to stop, or there is nothing left to halve; says what would fit.
    """
    size, device = run.micro_batch_size, run.fabric.device
    peak = f" (peak {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB)" if device.type == "cuda" else ""
    where = f"out of memory in step {run.state.step + 1}{peak} with micro-batches of {size}"
    smaller = "a shorter --max-seq-length, --precision bf16-true or a smaller model needs less"
    if size == 1:
        raise LitMoEError(f"{where}: {smaller}") from error
    half = size // 2
    if run.config.faults.on_oom == "stop":
        raise LitMoEError(
            f"{where}: --micro-batch-size {half} needs about half for activations (--on-oom shrink does it by "
            f"itself); {smaller}"
        ) from error
    if run.fabric.world_size > 1:
        raise LitMoEError(
            f"{where}: with several devices start again with --micro-batch-size {half}"
        ) from error
    if run.config.train.global_batch_size % half:
        half = 1
    run.optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    run.state.micro_batch_size = half
    message = f"{where}: goes on with micro-batches of {half}, {run.accumulation} per step"
    run.events.add("shrink", message, step=run.state.step + 1, figures={"micro_batch_size": half})
