"""The training loop: a straight line from a configuration to a trained model in a checkpoint."""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.data.windows import Batch
from litmoe.errors import LitMoEError
from litmoe.model.flops import flops_per_token
from litmoe.model.moe import MoE
from litmoe.model.routing import update_correction_bias
from litmoe.training import resume
from litmoe.training.announce import announce
from litmoe.training.metrics import MetricsFile, Row, StepFigures, columns, make_logger, row_of
from litmoe.training.progress import Progress
from litmoe.training.run import Run, set_up
from litmoe.training.samples import sample_texts
from litmoe.training.schedule import learning_rate


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has come to."""

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


def train(config: TrainConfig) -> TrainResult:
    """Pretrain a model from a configuration, or continue a run.

    Raises:
        LitMoEError: settings, data or checkpoint that cannot work, a full disk, or a loss that is not finite.
    """
    run = set_up(config)
    fabric = run.fabric
    if fabric.is_global_zero:
        checkpoint.clean(config.out_dir)
    resume_from = resume.checkpoint_to_resume(run, say=fabric.print)
    if resume_from is not None:
        resume.load(run, resume_from)
    elif config.initial_checkpoint_dir is not None:
        resume.load_weights(run, config.initial_checkpoint_dir)
    if fabric.is_global_zero:
        announce(run, resume_from)
    first_step = run.state.step
    if first_step >= run.plan.steps:
        fabric.print(
            f"nothing left to train: the run is complete at step {first_step}; "
            "raise --max-tokens to go on, or choose another --out-dir for a new run"
        )
    _record(run, resume_from is not None)
    folder = resume_from
    if folder is None or run.state.step > first_step:
        folder = _save_final(run)
    return _finish(run, folder)


def validate(run: Run) -> float:
    """Mean loss on the run's fixed validation windows, in nats per token."""
    run.objective.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=run.fabric.device)
    with torch.no_grad():
        for inputs_BT, targets_BT in run.batches.validation():
            count = (targets_BT != -100).sum()
            totals += torch.stack([run.objective(inputs_BT, targets_BT).cross_entropy * count, count])
    run.objective.train()
    loss_sum, count = run.fabric.all_reduce(totals, reduce_op="sum").tolist()
    run.state.val_loss = loss_sum / count
    run.state.best_val_loss = min(run.state.val_loss, run.state.best_val_loss or math.inf)
    return run.state.val_loss


def _record(run: Run, resumed: bool) -> None:
    """Train to the end, and write down the figures."""
    config = run.config
    if not run.fabric.is_global_zero:
        for _ in _fit(run, Progress(run.plan.steps, run.state.step, show_bar=False, quiet=True)):
            pass
        return
    n_moe = sum(isinstance(module, MoE) for module in run.gpt.modules())
    logger = make_logger(config, name=f"pretrain-{run.model_config.name}", resume=resumed)
    if logger is not None:
        logger.log_hyperparams(as_plain(config))
    metrics = MetricsFile(
        config.out_dir / "metrics.csv",
        columns(n_moe, run.model_config.n_expert),
        resume_step=run.state.step if resumed else None,
    )
    progress = Progress(run.plan.steps, run.state.step, config.progress)
    status = "failed"
    try:
        for row in _fit(run, progress):
            metrics.write(row)
            if logger is not None:
                logger.log_metrics(row, step=int(row["step"]))
        status = "success"
    finally:
        progress.close()
        metrics.close()
        if logger is not None:
            logger.finalize(status)


def _fit(run: Run, progress: Progress) -> Iterator[Row]:
    """All steps that are left; yields the row of every step that is logged, before its checkpoint is written.

    A step with a checkpoint is always logged, so that the metrics are never behind what a run resumes from.
    """
    config, state, plan = run.config, run.state, run.plan
    per_token = flops_per_token(run.model_config, run.seq_length)
    peak_flops = _peak_flops(run)
    started = time.perf_counter()
    step_seconds: list[float] = []
    if config.eval.initial_validation and state.step == 0:
        progress.say(f"validation before the first step: loss {validate(run):.4f}")
    with closing(run.batches.training(state.samples)) as batches:  # type: ignore[type-var]
        while state.step < plan.steps:
            step_started = time.perf_counter()
            lr = learning_rate(state.step, run.peak_lr, config.train.min_lr, plan, config.schedule)
            figures = _step(run, batches, lr)
            state.step += 1
            state.samples += config.train.global_batch_size
            state.tokens += plan.tokens_per_step
            state.train_loss = figures.train_loss
            step_seconds.append(time.perf_counter() - step_started)
            state.seconds += step_seconds[-1]
            out_of_time = (
                config.train.max_time is not None and time.perf_counter() - started > config.train.max_time
            )
            last = state.step == plan.steps or _anywhere(run, out_of_time)

            row = row_of(run, figures, lr)
            row["tokens_per_second"] = plan.tokens_per_step * len(step_seconds) / sum(step_seconds)
            row["flops_per_second"] = row["tokens_per_second"] * per_token
            if peak_flops:
                row["mfu"] = row["flops_per_second"] / peak_flops
            if state.step % config.eval.interval == 0 or (last and config.eval.final_validation):
                row["val_loss"] = validate(run)
                if (bits := _bits_per_byte(run)) is not None:
                    row["val_bits_per_byte"] = bits
            save_due = (
                bool(config.train.save_interval) and state.step % (config.train.save_interval or 1) == 0
            )
            logged = last or save_due or "val_loss" in row or state.step % config.train.log_interval == 0
            progress.step(state.step, row, sum(step_seconds) / len(step_seconds), logged)
            if logged:
                step_seconds = []
                yield row
            if config.sample.interval and state.step % config.sample.interval == 0 and not last:
                for text in sample_texts(run, 1):
                    progress.say(f"--- step {state.step} writes ---\n{text}\n---")
            if last:
                return
            if save_due:
                folder = checkpoint.step_folder(config.out_dir, state.step)
                resume.save(run, folder)
                progress.say(f"saved {folder}")


def _step(run: Run, batches: Iterator[Batch], lr: float) -> StepFigures:
    """One update from one global batch.

    Raises:
        LitMoEError: the loss is not finite; weights and optimizer are still those of the step before.
    """
    fabric, accumulation = run.fabric, run.accumulation
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    sums: list[Tensor] = []
    for number in range(accumulation):
        inputs_BT, targets_BT = next(batches)
        # Only the last micro-batch exchanges gradients between devices.
        with fabric.no_backward_sync(run.objective, enabled=number < accumulation - 1):
            losses = run.objective(inputs_BT, targets_BT, run.state.load_LE)
            fabric.backward(losses.total / accumulation)
        sums = [a + b for a, b in zip(sums, losses[1:], strict=True)] if sums else list(losses[1:])
    figures = StepFigures.over_all(fabric, sums, accumulation)
    max_norm = run.config.train.max_norm
    if max_norm is not None:
        norm = fabric.clip_gradients(
            run.objective, run.optimizer, max_norm=max_norm, error_if_nonfinite=False
        )
        figures.grad_norm = float(norm)
    _refuse_non_finite(run, figures)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.state.load_LE = figures.counts_LE
    if run.config.moe.balance == "bias":
        layers = (module for module in run.gpt.modules() if isinstance(module, MoE))
        for moe, counts_E in zip(layers, figures.counts_LE, strict=True):
            update_correction_bias(
                moe.gate.e_score_correction_bias, counts_E, run.config.moe.bias_update_speed
            )
    return figures


def _refuse_non_finite(run: Run, figures: StepFigures) -> None:
    """Stop before an update that would spoil the weights."""
    values = {"loss": figures.train_loss}
    # In 16-mixed an overflow of the scaled gradients is part of the method: that step is skipped.
    if figures.grad_norm is not None and run.config.precision != "16-mixed":
        values["gradient norm"] = figures.grad_norm
    for name, value in values.items():
        if not math.isfinite(value):
            raise LitMoEError(
                f"the {name} of step {run.state.step + 1} is {value}: resume from the last checkpoint "
                "with a lower learning rate or a longer warm-up"
            )


def _peak_flops(run: Run) -> float | None:
    """FLOP/s that all devices could do at best in this precision; None for devices that nobody has listed."""
    if run.fabric.device.type != "cuda":
        return None
    dtype = {"3": torch.float32, "b": torch.bfloat16, "1": torch.float16}[str(run.config.precision)[0]]
    per_device = get_available_flops(run.fabric.device, dtype)
    return per_device * run.fabric.world_size if per_device else None


def _anywhere(run: Run, condition: bool) -> bool:
    """Whether the condition holds on any process, so that all of them stop at the same step."""
    if run.fabric.world_size == 1:
        return condition
    flag = torch.tensor(float(condition), device=run.fabric.device)
    return bool(run.fabric.all_reduce(flag, reduce_op="sum").item())


def _bits_per_byte(run: Run) -> float | None:
    """The last validation loss per byte of text, which does not depend on the tokenizer."""
    if run.state.val_loss is None or not run.batches.bytes_per_token:
        return None
    return run.state.val_loss / math.log(2) / run.batches.bytes_per_token


def _save_final(run: Run) -> Path:
    """The checkpoint ``final``, and under the name of its step too where one is due."""
    config, step = run.config, run.state.step
    final = config.out_dir / "final"
    resume.save(run, final)
    if config.train.save_interval and step % config.train.save_interval == 0 and run.fabric.is_global_zero:
        checkpoint.copy(final, checkpoint.step_folder(config.out_dir, step))
    return final


def _finish(run: Run, folder: Path) -> TrainResult:
    """Print what the run has come to."""
    state, say = run.state, run.fabric.print
    bits = _bits_per_byte(run)
    speed = state.tokens / state.seconds if state.seconds else 0.0
    texts = sample_texts(run, run.config.sample.final)
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
