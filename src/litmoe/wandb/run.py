"""A training run on Weights & Biases: its id, its rows, its data set, its texts, its checkpoints.

A run of litmoe is one run of W&B, however often it is killed and resumed. Its id lies in its own folder
(``wandb-run-id``), so that two runs started from one working directory stay two. W&B's step is the run's step, and
each step stands there once: rows that W&B has already are not sent again, and rows that it lacks are sent from
``metrics.csv``.
"""

import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import Logger

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.errors import ConfigError, LitMoEError
from litmoe.files import reason_of, write_text
from litmoe.messages import Say, silent
from litmoe.wandb.access import check_access, import_wandb, project_name, unreachable
from litmoe.wandb.datasets import check_reference
from litmoe.wandb.names import check_artifact, check_project
from litmoe.wandb.offline import next_step

ID_FILE = "wandb-run-id"
"""In the output folder of a run: the id of its W&B run."""

MODEL = "model"

_OTHER_WAYS = ("WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM")
_SECONDS_TO_FINISH = 600.0
_MOST_TEXTS = 1000  # in the table of samples, which is sent whole each time


def check_run(config: TrainConfig, model_name: str) -> None:
    """Everything about W&B that can be known to go wrong in a run, before any work starts.

    Raises:
        LitMoEError: a name against W&B's rules, or what :func:`litmoe.wandb.access.check_access` finds.
    """
    if config.wandb_checkpoints:
        model_artifact_name(model_name)
    if config.wandb_dataset is not None:
        check_reference(config.wandb_dataset, config.wandb_artifacts_dir)
    if config.logger_name == "wandb":
        if config.log.project:
            check_project(config.log.project)
        for name in _OTHER_WAYS:
            if os.environ.get(name):
                raise ConfigError(
                    f"{name} is set, but litmoe resumes W&B's run itself, by the id in {ID_FILE} of the output "
                    "folder: unset it"
                )
        run_id(config.out_dir, resumed=config.resume is not False, make=False)
        check_access()


def run_id(out_dir: Path, resumed: bool, make: bool = True) -> str | None:
    """The id of the W&B run that belongs to an output folder.

    Args:
        out_dir: the folder.
        resumed: whether the run continues; a new run gets a new id, for the folder may hold an older one's.
        make: write an id where there is none.

    Returns:
        The id; None if there is none and none was made.

    Raises:
        ConfigError: ``WANDB_RUN_ID`` names another run, or the file holds no id.
        LitMoEError: the file cannot be read or written.
    """
    path, wanted = out_dir / ID_FILE, os.environ.get("WANDB_RUN_ID") or None
    found = None
    if resumed:
        try:
            found = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise LitMoEError(f"{path}: cannot be read: {reason_of(error)}") from error
    if found is not None and wanted not in (None, found):
        raise ConfigError(
            f"WANDB_RUN_ID is {wanted}, and the run in {out_dir} is W&B's run {found}: unset it, or choose "
            "another --out-dir"
        )
    new = found is None
    found = found or wanted or (uuid.uuid4().hex[:8] if make else None)
    if found is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", found):
        where = "WANDB_RUN_ID" if new else str(path)
        raise ConfigError(
            f"{where}: {found[:40]!r} is not an id of W&B's (letters, digits, dashes, underscores)"
        )
    if make and new and found is not None:
        write_text(path, found + "\n", "choose another --out-dir")
    return found


class WandbLogger(Logger):
    """The rows of a run, on W&B."""

    def __init__(self, config: TrainConfig, resumed: bool, say: Say = silent) -> None:
        """Begin the W&B run of an output folder, or continue it.

        Raises:
            LitMoEError: W&B is not installed or cannot be reached, or the id cannot be read or written.
        """
        wandb = import_wandb()
        id_file = config.out_dir / ID_FILE
        was_there = id_file.exists()
        identity = run_id(config.out_dir, resumed)
        wandb_dir = os.environ.get("WANDB_DIR", ".")
        if wandb.run is not None:  # of whoever runs in this process: its rows are not this run's
            raise LitMoEError(
                f"W&B's run {wandb.run.id} is still open in this process: finish it first (wandb.finish())"
            )
        try:
            self.experiment: Any = wandb.init(
                project=config.log.project or project_name(),
                name=config.log.run or os.environ.get("WANDB_RUN_NAME"),
                group=config.log.group or os.environ.get("WANDB_RUN_GROUP"),
                id=identity,
                resume="allow",
                dir=wandb_dir,  # without it, wandb would choose
                settings=_settings(wandb, config),
            )
        except Exception as error:  # wandb's errors share no base class
            if not was_there:
                with suppress(OSError):
                    id_file.unlink()
            raise LitMoEError(unreachable(error)) from error
        self.next_step = int(self.experiment.starting_step or 0)
        if resumed and self.experiment.offline:
            self.next_step = next_step(Path(wandb_dir), str(identity))
        """W&B has the rows of the steps below, and takes no others for them."""
        if resumed and self.next_step:
            say(f"W&B run {identity} continues; it has the rows up to step {self.next_step - 1}")

    @property
    def name(self) -> str:
        """The run's name for people."""
        return str(self.experiment.name)

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self.experiment.id)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """The settings of the run; those of an earlier part are replaced."""
        self.experiment.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """The row of a step, which W&B may have from before the run was resumed or rolled back."""
        if step is None or step >= self.next_step:
            self.experiment.log(dict(metrics), step=step)
            self.next_step = max(self.next_step, step or 0)

    def catch_up(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Send the rows of ``metrics.csv`` that W&B lacks: those of the last seconds die with a killed process.

        Args:
            rows: the cells of the rows up to the checkpoint that the run continues from, in order.
        """
        for row in rows:
            if (step := int(row["step"])) >= self.next_step:
                self.log_metrics(_numbers(row), step=step)

    def finalize(self, status: str) -> None:
        """End W&B's run, when all of it is uploaded; it can be continued after any status.

        Args:
            status: ``finished``; anything else marks the run as failed.
        """
        self.experiment.finish(exit_code=0 if status in ("finished", "success") else 1)


def wandb_run(logger: Any) -> Any | None:
    """The W&B run behind a logger; None if it is another logger, or none.

    Raises:
        LitMoEError: W&B cannot be reached.
    """
    if type(logger).__name__ != "WandbLogger":
        return None
    try:
        return logger.experiment
    except Exception as error:  # Lightning's logger begins its run here
        raise LitMoEError(unreachable(error)) from error


def record_dataset(run: Any, artifact: str, fingerprint: str) -> None:
    """Record which data set a run trains on: in its configuration and, with a server, as lineage.

    Args:
        run: the W&B run.
        artifact: ``entity/project/name:version``.
        fingerprint: of the data set.

    Raises:
        LitMoEError: W&B cannot be reached.
    """
    run.config.update({"wandb_dataset": artifact, "dataset_fingerprint": fingerprint}, allow_val_change=True)
    if run.offline or run.disabled:
        return
    try:
        run.use_artifact(artifact)
    except Exception as error:
        raise LitMoEError(unreachable(error)) from error


class SampleTable:
    """The texts that a model wrote while it trained, as one table that grows; the last 1,000 of them."""

    def __init__(self, run: Any, next_step: int = 0) -> None:
        """
        Args:
            run: the W&B run.
            next_step: W&B has the texts of the steps below.
        """
        self._run, self._next_step = run, next_step
        self._rows: list[list[Any]] = []

    def add(self, step: int, texts: Sequence[str]) -> None:
        """Log the texts of a step, with those before; beside the row of that step."""
        self._rows = [*self._rows, *([step, text] for text in texts)][-_MOST_TEXTS:]
        if step < self._next_step:
            return
        # A table that was logged is finished: W&B wants a new one with all rows.
        table = import_wandb().Table(columns=["step", "text"], data=[list(row) for row in self._rows])
        self._run.log({"samples": table}, step=step)


def model_artifact_name(model_name: str) -> str:
    """The Artifact's name for the checkpoints of a model.

    Raises:
        LitMoEError: the model's name is against W&B's rules.
    """
    name = f"model-{model_name or 'unnamed'}"
    check_artifact(name)
    return name


def log_checkpoint(run: Any, folder: Path, name: str, metadata: dict[str, Any], best: bool) -> None:
    """Upload a checkpoint as an Artifact of type ``model``: the files of its manifest.

    Args:
        run: the W&B run.
        folder: the checkpoint.
        name: the Artifact's name, from :func:`model_artifact_name`.
        metadata: such as step and losses.
        best: whether its validation loss is the lowest of the run so far.

    Raises:
        CheckpointError: it is not a whole checkpoint.
    """
    files = [*checkpoint.verify(folder, contents=False)["files"], checkpoint.MANIFEST]
    artifact = import_wandb().Artifact(name, type=MODEL, metadata=metadata)
    for file in sorted(files):
        # Copied first: a later checkpoint may take this one's place before it is uploaded.
        artifact.add_file(str(folder / file), name=file, policy="mutable", skip_cache=True)
    run.log_artifact(artifact, aliases=["latest", "best"] if best else ["latest"])


def _numbers(row: Mapping[str, str]) -> dict[str, float | int]:
    """The cells of a row that hold numbers."""
    numbers: dict[str, float | int] = {}
    for name, text in row.items():
        with suppress(TypeError, ValueError):
            numbers[name] = int(text) if text.lstrip("-").isdigit() else float(text)
    return numbers


def _settings(wandb: Any, config: TrainConfig) -> Any:
    """Bounded waits: a run that is done does not stay for a network that has gone (older versions of wandb do)."""
    wanted: dict[str, Any] = {"init_timeout": 60}
    if not config.wandb_checkpoints:  # which may take hours to upload
        wanted["finish_timeout"] = _SECONDS_TO_FINISH
    known = getattr(wandb.Settings, "model_fields", {})
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})
