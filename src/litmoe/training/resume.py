"""From a run to a checkpoint and back: what is saved, what may be continued, and what must be equal for that."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.config.files import read_yaml
from litmoe.errors import CheckpointError, LitMoEError
from litmoe.messages import Say, silent
from litmoe.optim.torchao_state import plain, restored
from litmoe.training.run import Run, State

Change = dict[str, Any]
"""A setting that was changed when a run was continued: ``step``, ``setting`` (dotted), ``old`` and ``new``."""

# Paths and display options do not affect training; the model is compared by `Run.identity`.
_NOT_TRAINING = (
    "resume",
    "out_dir",
    "initial_checkpoint_dir",
    "progress",
    "report",
    "model_config",
    "model_name",
)


def contents(run: Run, changes: Sequence[Change] = (), val_loss: float | None = None) -> checkpoint.Contents:
    """What a checkpoint of the run as it stands holds. Its tensors are the run's own, not copies.

    Args:
        run: the run.
        changes: what was changed in its settings on the way, as `load` returns it.
        val_loss: of the model as it stands; None where that was not measured.
    """
    weights = run.gpt.state_dict()
    return checkpoint.Contents(
        step=run.state.step,
        model=weights,
        trainer={
            "optimizer": plain(run.optimizer.state_dict()),
            "state": dict(vars(run.state)),
            "identity": run.identity,
            "rng": _rng_states(),
            "precision": run.fabric.strategy.precision.state_dict(),  # of 16-mixed: the scale of the loss
            "changes": list(changes),
        },
        model_config=asdict(run.model_config),
        settings=as_plain(run.config),
        tokenizer_dir=run.config.tokenizer_dir,
        val_loss=val_loss,
        hf_config=checkpoint.hf_config(run.model_config, weights),
    )


def load(run: Run, folder: Path, say: Say = silent) -> list[Change]:
    """Put a run into the state of a checkpoint.

    Returns:
        All changes of settings in the run so far. ``say`` is told those from this checkpoint to now, in one line.

    Raises:
        LitMoEError: damaged, or of a run that differs in what may not differ: lists the differences.
    """
    trainer = checkpoint.load_trainer(folder)
    foreign = LitMoEError(f"{folder}: {checkpoint.TRAINER_STATE} is not from this version of litmoe")
    try:
        saved_identity, saved_state = trainer["identity"], State(**trainer["state"])
        optimizer_state, rng = trainer["optimizer"], trainer["rng"]
        counters = (saved_state.step, saved_state.samples, saved_state.tokens)
        sound = isinstance(saved_identity, dict) and all(isinstance(count, int) for count in counters)
        load_LE = saved_state.load_LE
        sound = sound and (load_LE is None or isinstance(load_LE, torch.Tensor))
    except (KeyError, TypeError, AttributeError) as error:
        raise foreign from error
    if not sound:
        raise foreign
    differences = _differences(saved_identity, run.identity)
    if differences:
        raise LitMoEError(
            f"{folder} cannot be continued with other settings ({'; '.join(differences)}): "
            "set them back, or choose another --out-dir for a new run"
        )
    load_weights(run, folder)
    now = [dict(group) for group in run.optimizer.param_groups]
    try:
        run.optimizer.load_state_dict(restored(optimizer_state))
        if trainer.get("precision"):
            run.fabric.strategy.precision.load_state_dict(trainer["precision"])
        run.state = saved_state
        if saved_state.learning_rate is None and saved_state.step:  # of a version that did not save it
            saved_state.learning_rate = float(run.optimizer.param_groups[0]["lr"])
        if load_LE is not None:
            run.state.load_LE = load_LE.to(run.fabric.device)
        _set_rng_states(rng)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise foreign from error
    changes = changed_settings(read_yaml(folder / checkpoint.SETTINGS), run.config)
    _apply_to_optimizer(run, changes, now)
    _settle_micro_batch(run, changes)
    if changes:
        texts = [f"{name} {_text(old)} -> {_text(new)}" for name, old, new in changes]
        say(f"continues with changed settings: {', '.join(texts)}")
    step = run.state.step
    new = [{"step": step, "setting": name, "old": old, "new": new} for name, old, new in changes]
    return [*trainer.get("changes", []), *new]


def changed_settings(saved: dict[str, Any], config: TrainConfig) -> list[tuple[str, Any, Any]]:
    """The settings that differ between a checkpoint's and a run's, as (dotted name, old, new).

    A setting that the checkpoint does not have, being older, had its default. An argument of a class that one of
    the two does not give is None there: its default is the class's own.
    """
    old, now = (dict(_flat(settings)) for settings in (saved, as_plain(config)))
    default = {name: value for name, value in _flat(as_plain(TrainConfig())) if ".init_args." not in name}
    names = [name for name in {**now, **old} if name.partition(".")[0] not in _NOT_TRAINING]
    values = [(name, old.get(name, default.get(name)), now.get(name)) for name in names]
    return [(name, before, after) for name, before, after in values if before != after]


def load_weights(run: Run, folder: Path) -> None:
    """Load only the weights of a checkpoint, litmoe's or LitGPT's.

    Raises:
        CheckpointError: damaged, of another model, or with a head of its own for a run that has none.
    """
    weights = checkpoint.load_model(folder)
    try:
        run.gpt.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: these weights are not of this model: {reason}") from error
    tied, was_tied = bool(run.config.train.tie_embeddings), checkpoint.is_tied(weights)
    if tied and not was_tied:
        raise CheckpointError(
            f"{folder}: its language-model head was trained apart from the token embedding, and "
            "train.tie_embeddings would drop one of the two: set it to false"
        )
    if was_tied and not tied:
        run.say(
            f"{folder}: its token embedding is its language-model head too; from here on they are trained apart "
            "(--train.tie-embeddings true keeps them one)"
        )


def _differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    for key in now:
        old, new = saved.get(key), now[key]
        if isinstance(new, dict) and isinstance(old, dict):
            found += _differences(old, new)
        elif old != new:
            # Fingerprints say nothing to a person.
            is_hash = isinstance(new, str) and len(new) == 64
            found.append(
                f"the {key} is another one" if is_hash else f"{key}: {old} in the checkpoint, {new} now"
            )
    return found


def _apply_to_optimizer(run: Run, changes: list[tuple[str, Any, Any]], now: list[dict[str, Any]]) -> None:
    """Give the optimizer its changed arguments, in place of those that came with its state."""
    for name, _, _ in changes:
        argument = name.removeprefix("optimizer.init_args.")
        for group, own in zip(run.optimizer.param_groups, now, strict=True):
            if argument != name and argument in own:
                group[argument] = own[argument]


def _settle_micro_batch(run: Run, changes: list[tuple[str, Any, Any]]) -> None:
    """Keep the micro-batch that memory allowed, unless another one was chosen since, or it does not divide."""
    chosen = any(name == "train.micro_batch_size" for name, _, _ in changes)
    if chosen or run.config.train.global_batch_size % (run.micro_batch_size * run.fabric.world_size):
        run.state.micro_batch_size = None


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under dotted names."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _rng_states() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def _set_rng_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    # on other hardware no draw repeats anyway
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
