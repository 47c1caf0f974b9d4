"""What a training run tells Weights & Biases besides its metrics: its data set, its texts, its checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litmoe.errors import LitMoEError
from litmoe.wandb.datasets import MODEL, import_wandb, unreachable
from litmoe.wandb.names import check_artifact


def wandb_run(logger: Any) -> Any | None:
    """The W&B run behind a logger of Lightning's; None where it is another logger, or none."""
    if type(logger).__name__ != "WandbLogger":
        return None
    try:
        return logger.experiment
    except Exception as error:  # wandb's errors share no base class
        raise LitMoEError(unreachable(error)) from error


def record_dataset(run: Any, artifact: str, fingerprint: str) -> None:
    """Record which data set a run trains on: as lineage where there is a server, and in its configuration always.

    Args:
        run: the W&B run.
        artifact: ``entity/project/name:version``.
        fingerprint: of the data set.
    """
    run.config.update({"wandb_dataset": artifact, "dataset_fingerprint": fingerprint}, allow_val_change=True)
    if run.offline or run.disabled:  # lineage is the server's knowledge
        return
    try:
        run.use_artifact(artifact)
    except Exception as error:
        raise LitMoEError(unreachable(error)) from error


class SampleTable:
    """The texts that a model wrote while it trained, as one table that grows."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._rows: list[list[Any]] = []

    def add(self, step: int, texts: Sequence[str]) -> None:
        """Log the texts of a step, with those before."""
        self._rows += [[step, text] for text in texts]
        # A table that was logged is finished: W&B wants a new one with all rows.
        table = import_wandb().Table(columns=["step", "text"], data=[list(row) for row in self._rows])
        self._run.log({"samples": table, "trainer/global_step": step})


def model_artifact_name(model_name: str) -> str:
    """The Artifact's name for the checkpoints of a model.

    Raises:
        LitMoEError: the model's name is against W&B's rules.
    """
    name = f"model-{model_name or 'unnamed'}"
    check_artifact(name)
    return name


def log_checkpoint(run: Any, folder: Path, name: str, metadata: dict[str, Any], best: bool) -> None:
    """Upload a checkpoint as an Artifact of type ``model``.

    Args:
        run: the W&B run.
        folder: the checkpoint.
        name: the Artifact's name, from :func:`model_artifact_name`.
        metadata: such as step and losses.
        best: whether its validation loss is the lowest of the run so far.
    """
    artifact = import_wandb().Artifact(name, type=MODEL, metadata=metadata)
    for path in sorted(folder.iterdir()):
        # Copied first: a later checkpoint may take this one's place before it is uploaded.
        artifact.add_file(str(path), name=path.name, policy="mutable", skip_cache=True)
    run.log_artifact(artifact, aliases=["latest", "best"] if best else ["latest"])
