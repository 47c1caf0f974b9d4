"""The training loop: a straight line from a configuration to a trained model in a checkpoint."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.config.checks import check
from litmoe.config.load import as_typed
from litmoe.distributed.collective import anywhere, on_first_process
from litmoe.distributed.session import Session
from litmoe.distributed.world import World
from litmoe.errors import DiskFullError, LitMoEError, RunInterrupted
from litmoe.messages import Say, silent
from litmoe.optim.build import set_learning_rate
from litmoe.training import resume
from litmoe.training.device import start_devices, world_of
from litmoe.training.faults import is_out_of_memory, make_room, problem_of, roll_back, skip_step
from litmoe.training.interruption import SIGNALS, Interruption
from litmoe.training.out_dir import OutDir, checkpoint_to_resume, locked
from litmoe.training.recording.announce import announce
from litmoe.training.recording.dead_experts import DeadExperts
from litmoe.training.recording.events import EventLog
from litmoe.training.recording.metrics import StepFigures, row_of
from litmoe.training.recording.metrics_file import Row
from litmoe.training.recording.progress import Progress
from litmoe.training.recording.recorder import Recorder
from litmoe.training.recording.samples import final_prompts, prompt_of_step, sample_texts
from litmoe.training.recording.speed import Speed
from litmoe.training.run import Run
from litmoe.training.saving import CheckpointWriter, warn_if_disk_small
from litmoe.training.schedule import learning_rate
from litmoe.training.setup import check_parts, set_up
from litmoe.training.step import gradients, update
from litmoe.training.validation import bits_per_byte, validate


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
        say: takes the lines for a person, in the first process only. If it fails, training goes on without it.

    Raises:
        RunInterrupted: a signal asked for the end; the state is saved, and ``resume: auto`` goes on.
        LitMoEError: settings, data or checkpoint that cannot work, a full disk, or a loss that is not finite.
    """
    config = as_typed(config)
    check(config)
    check_parts(config)
    with ExitStack() as stack:
        # the processes, of which the first one speaks
        session = stack.enter_context(Session(world_of(config), config.faults.rank_timeout))
        interruption = stack.enter_context(Interruption())
        progress = Progress(say if session.world.first else silent)
        events = EventLog(progress.say, progress.event)
        stack.callback(events.close)
        config = _resuming_after_restart(config, session.world, events.say)
        config, fabric = start_devices(config, events.say, session)

        # the folder: whoever writes holds its lock, and one that holds another run is refused before any work
        def take_folder() -> tuple[OutDir, Path | None]:
            return stack.enter_context(locked(config.out_dir)), checkpoint_to_resume(config, events.say)

        out_dir, resume_from = on_first_process(fabric, take_folder)
        run = set_up(config, events, fabric)
        stack.callback(run.close)
        return _train(run, resume_from, out_dir, progress, interruption, session)


def _resuming_after_restart(config: TrainConfig, world: World, say: Say) -> TrainConfig:
    """The configuration of a run that its launcher has started again after a failure: it goes on by itself."""
    if not world.restarts or config.resume is not False:
        return config
    say(f"restart {world.restarts} by {world.launcher}: resumes, as with --resume auto")
    return replace(config, resume="auto")


def _train(
    run: Run,
    resume_from: Path | None,
    out_dir: OutDir,
    progress: Progress,
    interruption: Interruption,
    session: Session,
) -> TrainResult:
    # where the run starts
    config, events = run.config, run.events
    changes: list[resume.Change] = []
    if resume_from is not None:
        changes = resume.load(run, resume_from, run.say)
    elif config.initial_checkpoint_dir is not None:
        resume.load_weights(run, config.initial_checkpoint_dir)
    events.step = run.state.step
    announce(run, resume_from)
    warn_if_disk_small(run, run.say)
    if run.state.step >= run.horizon.steps:
        run.say(
            f"nothing left to train: the run is complete at step {run.state.step}; "
            "raise --max-tokens to go on, or choose another --out-dir for a new run"
        )
        assert resume_from is not None
        return _finish(run, resume_from, sample_texts(run, final_prompts(run)))

    # what it writes from here on
    recorder = Recorder(run, resumed=resume_from is not None)
    out_dir.begun = True
    if run.fabric.is_global_zero:
        events.open(config.out_dir)
    if resume_from is None:
        events.add("start", f"new run of {run.horizon.steps} steps", said=False)
    else:
        events.add(
            "resume", f"resumed from {resume_from}", figures={"changed_settings": len(changes)}, said=False
        )
    progress.begin(run.horizon.steps, config.progress)
    interruption.in_place = progress.is_live
    ended = "failed"
    try:
        with CheckpointWriter(run.fabric, config, events, resume_from, changes) as writer:
            session.set_rescue(writer.rescue)
            try:
                val_loss = _fit(run, progress, recorder, writer, interruption)
            except BaseException:
                session.leaving()
                raise
            progress.close()
            folder = writer.save_final(run, val_loss)
            recorder.checkpoint(folder, val_loss)
        if not config.sample.final:  # else the last step has texts enough
            _sample(run, recorder, progress)
        texts = sample_texts(run, final_prompts(run))
        recorder.texts(texts)
        ended = "finished"
    except RunInterrupted:
        ended = "interrupted"
        raise
    finally:
        progress.close()
        recorder.close(ended)
    events.add("finished", f"the run is complete at step {run.state.step}", said=False)
    return _finish(run, folder, texts)


def _fit(
    run: Run, progress: Progress, recorder: Recorder, writer: CheckpointWriter, interruption: Interruption
) -> float | None:
    """Do all steps that are left; returns the validation loss after the last one, where it was measured.

    A step with a checkpoint is always logged, and before the checkpoint is written, so that the metrics are never
    behind what a run resumes from.

    Raises:
        RunInterrupted: a signal asked for the end, and the state is saved.
    """
    config, events, horizon = run.config, run.events, run.horizon
    save_interval, max_time = config.train.save_interval, config.train.max_time
    speed, dead_experts = Speed(run), DeadExperts(events)
    started = time.perf_counter()

    def requests() -> list[float]:
        """What this process asks for after the step, for all to follow: an end by time, or by a signal."""
        out_of_time = max_time is not None and time.perf_counter() - started > max_time
        return [float(out_of_time), *(float(interruption.signal == number) for number in SIGNALS)]

    if config.eval.initial_validation and run.state.step == 0:
        first: Row = {"step": 0, "total_tokens": 0, **_validated(run)}
        run.say(f"validation before the first step: loss {first['val_loss']:.4f}")
        recorder.row(first, to_disk=False)
    while True:
        # the step, and whether it is the last one
        step_started = time.perf_counter()
        figures, lr = _step(run, writer, requests)
        state = run.state
        events.step = state.step
        state.seconds += speed.add(time.perf_counter() - step_started)
        out_of_time, *signals = figures.requests
        for number, count in zip(SIGNALS, signals, strict=True):
            if count:  # another rank may have got it
                interruption.ask(number)
        interrupted = any(signals)
        last = state.step == horizon.steps or bool(out_of_time)

        # its figures
        row = row_of(run, figures, lr) | speed.figures()
        if state.step % config.eval.interval == 0 or (last and config.eval.final_validation):
            row |= _validated(run)
        dead_experts.add(figures.counts_LE, last)

        # After a bad step the weights may be what is bad: nothing is saved, and no end made, before a good one.
        good = state.bad_in_a_row == 0
        save_due = good and (interrupted or (save_interval is not None and state.step % save_interval == 0))
        logged = last or save_due or "val_loss" in row or state.step % config.train.log_interval == 0
        show_step = partial(progress.step, row, speed.seconds_per_step, logged)
        events.show("output_failed", show_step, "training goes on without its output")
        complete = True
        if logged:
            speed.restart()
            complete = recorder.row(row, to_disk=save_due or last)

        # the end
        if last and not good:
            raise LitMoEError(
                f"the run ends with a bad step {state.step}, and its weights are not saved: raise --max-tokens "
                "a little and resume from the last checkpoint"
            )
        if last and not complete:
            raise DiskFullError(
                f"{config.out_dir}: no room for the last rows of its metrics: free some space"
            )
        if last:
            return row.get("val_loss")

        # or a checkpoint, and texts
        writer.poll()
        if save_due:
            folder = checkpoint.step_folder(config.out_dir, state.step)
            if anywhere(run.fabric, not complete):
                message = f"{folder}: not written, its metrics wait for room on the disk; training goes on"
                events.add("checkpoint_skipped", message)
            else:
                writer.save(run, folder, row.get("val_loss"))
            if interrupted or config.wandb_checkpoints:
                writer.wait()
                recorder.checkpoint(folder, row.get("val_loss"))
            if interrupted:
                ended = interruption.end(state.step, folder)
                events.add("interrupted", str(ended), figures={"exit_code": ended.exit_code}, said=False)
                raise ended
        _sample(run, recorder, progress)


def _step(
    run: Run, writer: CheckpointWriter, requests: Callable[[], Sequence[float]]
) -> tuple[StepFigures, float]:
    """Do one step, or skip it for a reason that is said; returns its figures and its learning rate.

    Raises:
        LitMoEError: the step cannot be done, and the configuration has no other way.
    """
    while True:
        state = run.state
        lr = learning_rate(state.step, run.peak_lr, run.config.train.min_lr, run.horizon, run.config.schedule)
        set_learning_rate(run.optimizer, lr)  # already here for a step in the backward
        try:
            figures = gradients(run, run.data(), requests)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            make_room(run, error)
            run.restart_data()
            continue
        problem = problem_of(run, figures)
        if problem is None:
            update(run, figures, lr)
            state.bad_in_a_row = 0
            state.train_loss, state.learning_rate = figures.train_loss, lr
        elif skip_step(run, problem):
            writer.wait()  # the checkpoint to go back to may still be pending
            roll_back(run, problem)
            run.restart_data()
            continue
        state.step += 1
        state.samples += run.config.train.global_batch_size
        state.tokens += run.horizon.tokens_per_step
        return figures, lr


def _validated(run: Run) -> Row:
    """The figures of a validation."""
    row: Row = {"val_loss": validate(run)}
    if (bits := bits_per_byte(run)) is not None:
        row["val_bits_per_byte"] = bits
    return row


def _sample(run: Run, recorder: Recorder, progress: Progress) -> None:
    """Let the model write from the next prompt, where the step is one of ``sample.interval``."""
    if (prompt := prompt_of_step(run)) is None:
        return
    texts = sample_texts(run, [prompt])
    recorder.texts(texts)
    for text in texts:
        show_text = partial(progress.sample, run.state.step, text)
        run.events.show("output_failed", show_text, "training goes on without its output")


def _finish(run: Run, folder: Path, texts: list[str]) -> TrainResult:
    """Say the outcome of the run."""
    state, say = run.state, run.say
    bits = bits_per_byte(run)
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
