"""From a run to a checkpoint and back: what is saved, what may be continued, and what must be equal for that."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from litmoe import checkpoint
from litmoe.config import as_plain
from litmoe.errors import LitMoEError
from litmoe.training.run import Run, State


def save(run: Run, folder: Path) -> None:
    """Write a checkpoint of the run as it stands; all processes wait until it is on the disk.

    Raises:
        LitMoEError: it could not be written.
    """
    if run.fabric.is_global_zero:
        checkpoint.save(
            folder,
            checkpoint.Contents(
                step=run.state.step,
                model=run.gpt.state_dict(),
                trainer={
                    "optimizer": run.optimizer.state_dict(),
                    "state": dict(vars(run.state)),
                    "identity": run.identity(),
                    "rng": _rng_states(),
                },
                model_config=asdict(run.model_config),
                settings=as_plain(run.config),
                tokenizer_dir=run.config.tokenizer_dir,
            ),
        )
    run.fabric.barrier()


def checkpoint_to_resume(run: Run, say: Callable[[str], None]) -> Path | None:
    """The checkpoint that the configuration asks to continue from.

    Raises:
        LitMoEError: the one asked for is not there or damaged; or the folder holds another run's checkpoints
            that a new run would write over.
    """
    resume, out_dir = run.config.resume, run.config.out_dir
    if isinstance(resume, Path):
        checkpoint.verify(resume)
        return resume
    found = checkpoint.newest(out_dir, say) if out_dir.is_dir() else None
    if resume is False and found is not None:
        raise LitMoEError(
            f"{out_dir} already holds a run ({found.name}): continue it with --resume auto, "
            "or choose another --out-dir"
        )
    if resume is True and found is None:
        raise LitMoEError(
            f"{out_dir}: no valid checkpoint to resume from; --resume auto starts anew where there is none"
        )
    return found


def load(run: Run, folder: Path) -> None:
    """Put a run into the state of a checkpoint.

    Raises:
        LitMoEError: damaged, or of a run that differs in what may not differ: lists the differences.
    """
    trainer = checkpoint.load_trainer(folder)
    try:
        saved_identity, saved_state = trainer["identity"], State(**trainer["state"])
        optimizer_state, rng = trainer["optimizer"], trainer["rng"]
    except (KeyError, TypeError) as error:
        raise LitMoEError(
            f"{folder}: {checkpoint.TRAINER_STATE} is not from this version of litmoe"
        ) from error
    differences = _differences(saved_identity, run.identity())
    if differences:
        raise LitMoEError(
            f"{folder} cannot be continued with other settings ({'; '.join(differences)}): "
            "set them back, or choose another --out-dir for a new run"
        )
    load_weights(run, folder)
    run.optimizer.load_state_dict(optimizer_state)
    run.state = saved_state
    if run.state.load_LE is not None:
        run.state.load_LE = run.state.load_LE.to(run.fabric.device)
    _set_rng_states(rng)


def load_weights(run: Run, folder: Path) -> None:
    """Only the weights of a checkpoint, of ours or LitGPT's.

    Raises:
        LitMoEError: damaged, or of another model.
    """
    try:
        run.gpt.load_state_dict(checkpoint.load_model(folder))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise LitMoEError(f"{folder}: these weights are not of this model: {reason}") from error


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


def _rng_states() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def _set_rng_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    if (
        len(states["cuda"]) == torch.cuda.device_count()
    ):  # else on other hardware, where no draw repeats anyway
        torch.cuda.set_rng_state_all(states["cuda"])
