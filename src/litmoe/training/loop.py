"""The training loop: a straight line from a configuration to a trained model in a checkpoint."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.config.checks import check
from litmoe.distributed.collective import anywhere, is_first_process
from litmoe.errors import LitMoEError, RunInterrupted
from litmoe.messages import Say, silent
from litmoe.model.flops import flops_per_token
from litmoe.model.precision import product_dtype
from litmoe.optim.build import set_learning_rate
from litmoe.training import resume
from litmoe.training.faults import is_out_of_memory, make_room, problem_of, roll_back, skip_step
from litmoe.training.interruption import Interruption
from litmoe.training.out_dir import locked
from litmoe.training.recording.announce import announce
from litmoe.training.recording.metrics import StepFigures, row_of
from litmoe.training.recording.progress import Progress
from litmoe.training.recording.recorder import Recorder
from litmoe.training.recording.samples import sample_texts
from litmoe.training.run import Run
from litmoe.training.saving import CheckpointWriter, warn_if_disk_small
from litmoe.training.schedule import learning_rate
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a finished run."""

    checkpoint: Path
    """The folder of the final checkpoint."""
    steps: int
    tokens: int
    """Tokens trained on, over all devices and earlier parts of the run."""
    train_loss: float | None
    """Of the last global batch, nats per token."""
    val_loss: float | None
    """Nats per token, on the run's fixed validation windows."""
    val_bits_per_byte: float | None
    tokens_per_second: float
    """Over all steps of the run, validation and saving not counted."""
    texts: list[str] = field(default_factory=list)
    """The final sample texts."""


def train(config: TrainConfig, say: Say = silent) -> TrainResult:
    """Pretrain a model from a configuration, or continue a run.

    Args:
        config: stays as it is; the run works by a copy, settled for this machine.
        say: takes the lines for a person; called in the first process only.

    Raises:
        RunInterrupted: a signal asked for the end; the state is saved, and ``resume: auto`` goes on.
        LitMoEError: settings, data or checkpoint that cannot work, a full disk, or a loss that is not finite.
    """
    check(config)
    with locked(config.out_dir), Interruption() as interruption:
        run = set_up(config, say if is_first_process() else silent)
        try:
            return _train(run, interruption)
        finally:
            run.close()


def _train(run: Run, interruption: Interruption) -> TrainResult:
    config, say = run.config, run.say
    resume_from = resume.checkpoint_to_resume(run, say)
    changes: list[resume.Change] = []
    if resume_from is not None:
        changes = resume.load(run, resume_from, say)
    elif config.initial_checkpoint_dir is not None:
        resume.load_weights(run, config.initial_checkpoint_dir)
    if run.fabric.is_global_zero:
        announce(run, resume_from)
    warn_if_disk_small(run, say)
    if run.state.step >= run.horizon.steps:
        say(
            f"nothing left to train: the run is complete at step {run.state.step}; "
            "raise --max-tokens to go on, or choose another --out-dir for a new run"
        )
        assert resume_from is not None
        return _finish(run, resume_from, sample_texts(run, config.sample.final))
    recorder = Recorder(run, resumed=resume_from is not None)
    progress = Progress(run.horizon.steps, run.state.step, config.progress, say)
    ended = "failed"
    try:
        with CheckpointWriter(run.fabric, config, progress.say, resume_from, changes) as writer:
            val_loss = _fit(run, progress, recorder, writer, interruption)
            progress.close()
            folder = writer.save_final(run, val_loss)
            recorder.checkpoint(folder, val_loss)
        texts = sample_texts(run, config.sample.final)
        recorder.texts(texts)
        ended = "finished"
    except RunInterrupted:
        ended = "interrupted"
        raise
    finally:
        progress.close()
        recorder.close(ended)
    return _finish(run, folder, texts)


def validate(run: Run) -> float:
    """Mean loss on the run's fixed validation windows, in nats per token."""
    run.objective.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=run.fabric.device)
    with torch.no_grad():
        for inputs_BT, targets_BT in run.batches.validation(run.micro_batch_size):
            count = (targets_BT != -100).sum()
            totals += torch.stack([run.objective(inputs_BT, targets_BT).cross_entropy * count, count])
    run.objective.train()
    loss_sum, count = run.fabric.all_reduce(totals, reduce_op="sum").tolist()
    run.state.val_loss = loss_sum / count
    run.state.best_val_loss = min(run.state.val_loss, run.state.best_val_loss or math.inf)
    return run.state.val_loss


def _fit(
    run: Run, progress: Progress, recorder: Recorder, writer: CheckpointWriter, interruption: Interruption
) -> float | None:
    """All steps that are left; returns the validation loss after the last one, where it was measured.

    A step with a checkpoint is always logged, and before the checkpoint is written, so that the metrics are never
    behind what a run resumes from.

    Raises:
        RunInterrupted: a signal asked for the end, and the state is saved.
    """
    config, horizon = run.config, run.horizon
    per_token = flops_per_token(run.model_config, run.seq_length)
    best_flops = peak_flops(run)
    started = time.perf_counter()
    step_seconds: list[float] = []
    if config.eval.initial_validation and run.state.step == 0:
        progress.say(f"validation before the first step: loss {validate(run):.4f}")
    while True:
        step_started = time.perf_counter()
        figures, lr = _step(run, writer, progress.say)
        state = run.state
        step_seconds.append(time.perf_counter() - step_started)
        state.seconds += step_seconds[-1]
        max_time = config.train.max_time
        out_of_time = anywhere(run.fabric, max_time is not None and time.perf_counter() - started > max_time)
        interrupted = anywhere(run.fabric, interruption.signal is not None)
        last = state.step == horizon.steps or out_of_time

        row = row_of(run, figures, lr)
        row["tokens_per_second"] = horizon.tokens_per_step * len(step_seconds) / sum(step_seconds)
        row["flops_per_second"] = row["tokens_per_second"] * per_token
        if best_flops:
            row["mfu"] = row["flops_per_second"] / best_flops
        if state.step % config.eval.interval == 0 or (last and config.eval.final_validation):
            row["val_loss"] = validate(run)
            if (bits := _bits_per_byte(run)) is not None:
                row["val_bits_per_byte"] = bits
        interval = config.train.save_interval
        # After a bad step the weights may be what is bad: nothing is saved, and no end made, before a good one.
        good = state.bad_in_a_row == 0
        save_due = good and (interrupted or (interval is not None and state.step % interval == 0))
        logged = last or save_due or "val_loss" in row or state.step % config.train.log_interval == 0
        progress.step(state.step, row, sum(step_seconds) / len(step_seconds), logged)
        if logged:
            step_seconds = []
            recorder.row(row, to_disk=save_due or last)
        if last and not good:
            raise LitMoEError(
                f"the run ends with a bad step {state.step}, and its weights are not saved: raise --max-tokens "
                "a little and resume from the last checkpoint"
            )
        if last:
            return row.get("val_loss")
        writer.poll()
        if save_due:
            folder = checkpoint.step_folder(config.out_dir, state.step)
            writer.save(run, folder, row.get("val_loss"))
            if interrupted or config.wandb_checkpoints:
                writer.wait()
                recorder.checkpoint(folder, row.get("val_loss"))
            if interrupted:
                raise interruption.end(state.step, folder)
        if config.sample.interval and state.step % config.sample.interval == 0:
            texts = sample_texts(run, 1)
            recorder.texts(texts)
            for text in texts:
                progress.say(f"--- step {state.step} writes ---\n{text}\n---")


def _step(run: Run, writer: CheckpointWriter, say: Say) -> tuple[StepFigures, float]:
    """One step done, or left out for a reason that was said; its figures and its learning rate.

    Raises:
        LitMoEError: the step cannot be done, and the configuration has no other way.
    """
    while True:
        state = run.state
        lr = learning_rate(state.step, run.peak_lr, run.config.train.min_lr, run.horizon, run.config.schedule)
        set_learning_rate(run.optimizer, lr)  # already here for a step in the backward
        try:
            figures = gradients(run, run.data())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            make_room(run, error, say)
            run.restart_data()
            continue
        problem = problem_of(run, figures)
        if problem is None:
            update(run, figures, lr)
            state.bad_in_a_row = 0
            state.train_loss = figures.train_loss
        elif skip_step(run, problem, say):
            writer.wait()  # the checkpoint to go back to may still be on its way
            roll_back(run, problem, say)
            run.restart_data()
            continue
        state.step += 1
        state.samples += run.config.train.global_batch_size
        state.tokens += run.horizon.tokens_per_step
        return figures, lr


def peak_flops(run: Run) -> float | None:
    """Peak FLOP/s of all devices in this precision; None if unknown."""
    if run.fabric.device.type != "cuda":
        return None
    per_device = get_available_flops(run.fabric.device, product_dtype(str(run.config.precision)))
    return per_device * run.fabric.world_size if per_device else None


def _bits_per_byte(run: Run) -> float | None:
    """The last validation loss per byte of text, which does not depend on the tokenizer."""
    if run.state.val_loss is None or not run.batches.bytes_per_token:
        return None
    return run.state.val_loss / math.log(2) / run.batches.bytes_per_token


def _finish(run: Run, folder: Path, texts: list[str]) -> TrainResult:
    """Say the outcome of the run."""
    state, say = run.state, run.say
    bits = _bits_per_byte(run)
    speed = state.tokens / state.seconds if state.seconds else 0.0
    for number, text in enumerate(texts, 1):
        say(f"\n--- text {number} ---\n{text}")
    say("")
    if state.train_loss is not None:
        say(f"train loss       {state.train_loss:.4f}")
    if state.val_loss is not None:
        say(f"validation loss  {state.val_loss:.4f}")
    if bits is not None:
        say(f"bits per byte    {bits:.4f}")
    say(f"speed            {speed:,.0f} tokens per second")
    say(f"checkpoint       {folder}")
    return TrainResult(
        checkpoint=folder,
        steps=state.step,
        tokens=state.tokens,
        train_loss=state.train_loss,
        val_loss=state.val_loss,
        val_bits_per_byte=bits,
        tokens_per_second=speed,
        texts=texts,
    )
