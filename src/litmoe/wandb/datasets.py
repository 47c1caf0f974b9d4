"""Data sets through Weights & Biases: up as an Artifact, down again checked, used by a run."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litmoe.config import TrainConfig
from litmoe.errors import LitMoEError
from litmoe.files import only_one_process
from litmoe.messages import one_line
from litmoe.wandb.bundle import DESCRIPTION, TOKENIZER, bundle_of, check_bundle, inside
from litmoe.wandb.names import (
    Reference,
    check_aliases,
    check_artifact,
    check_entity,
    check_project,
    parse_reference,
)

Say = Callable[[str], None]

DATASET, MODEL = "dataset", "model"


@dataclass(frozen=True)
class Dataset:
    """A data set that was fetched from W&B."""

    data_dir: Path
    tokenizer_dir: Path
    artifact: str
    """``entity/project/name:version``."""
    fingerprint: str


def upload_wanted(asked: bool) -> bool:
    """Whether to upload a data set: asked for by a flag, or by ``WANDB_LOG_DATASET=1``."""
    return asked or os.environ.get("WANDB_LOG_DATASET", "").lower() in ("1", "true", "yes")


def check_upload(artifact: str, aliases: Sequence[str] = ()) -> None:
    """Everything that can be known to go wrong with an upload, before any work starts.

    Raises:
        LitMoEError: wandb is not installed, or a name is against W&B's rules.
    """
    import_wandb()
    check_artifact(artifact)
    check_aliases(aliases)
    check_project(project_name())
    if entity := os.environ.get("WANDB_ENTITY"):
        check_entity(entity)


def upload_dataset(
    data_dir: Path, tokenizer_dir: Path, artifact: str, aliases: Sequence[str] = (), say: Say = print
) -> str:
    """Upload a prepared data set as an Artifact of type ``dataset``; with ``WANDB_MODE=offline`` put it down for
    ``wandb sync``.

    Args:
        data_dir: the prepared data folder: all of its text and token stores go along.
        tokenizer_dir: the tokenizer that its stores were made with.
        artifact: the Artifact's name.
        aliases: besides ``latest``.
        say: gets one line per event.

    Returns:
        The data set's fingerprint.

    Raises:
        LitMoEError: a bad name, a folder that is not prepared, no wandb, or W&B cannot be reached.
    """
    check_upload(artifact, aliases)
    bundle = bundle_of(data_dir, tokenizer_dir)
    wandb = import_wandb()
    metadata = {key: value for key, value in bundle.description.items() if key != "files"}
    with tempfile.TemporaryDirectory(prefix="litmoe-wandb-") as scratch:
        listing = Path(scratch, DESCRIPTION)
        listing.write_text(json.dumps(bundle.description, indent=1) + "\n", encoding="utf-8")
        try:
            run = wandb.init(project=project_name(), job_type="prepare", settings=_settings(wandb))
            try:
                sent = wandb.Artifact(artifact, type=DATASET, metadata=metadata)
                for name, path in {**bundle.files, DESCRIPTION: listing}.items():
                    sent.add_file(str(path), name=name, policy=_policy(run), skip_cache=True)
                logged = run.log_artifact(sent, aliases=["latest", *aliases])
                if not (run.offline or run.disabled):
                    logged.wait()
            finally:
                run.finish()
        except Exception as error:  # wandb's errors, and those of what it stands on, share no base class
            raise LitMoEError(unreachable(error)) from error
    size = sum(path.stat().st_size for path in bundle.files.values())
    what = f"{len(bundle.files) + 1} files, {size / 1e6:,.1f} MB, fingerprint {bundle.fingerprint[:12]}"
    if run.disabled:
        say(f"WANDB_MODE is disabled: {artifact} ({what}) was not uploaded")
    elif run.offline:
        folder = Path(run.dir).parent
        say(f"put down {artifact} ({what}) without a network; upload it with: wandb sync {folder}")
    else:
        say(f"uploaded {artifact} ({what}) to {run.entity}/{run.project}")
    return bundle.fingerprint


def fetch_dataset(reference: str, artifacts_dir: Path, say: Say = print) -> Dataset:
    """The data set of an Artifact, downloaded once and checked every time.

    It lies in ``artifacts_dir/entity/project/name-version``. An Artifact is data from outside: its files' names
    must stay inside that folder, and all of them must be what its fingerprint says.

    Raises:
        LitMoEError: a bad reference, no wandb, no server, not a data set of litmoe, or a fingerprint that does
            not match.
    """
    wanted = parse_reference(reference)
    version = wanted.alias if re.fullmatch(r"v\d+", wanted.alias) else None
    found: Any = None
    if version is None or not _place(artifacts_dir, wanted, version).is_dir():
        found = _find(wanted)
        version = str(found.version)
        if not re.fullmatch(r"v\d+", version):
            raise LitMoEError(f"W&B artifact {wanted}: unexpected version {version!r}")
    folder = _place(artifacts_dir, wanted, version)
    announced = str(found.metadata.get("fingerprint")) if found is not None else None
    with only_one_process(folder, say):
        if not folder.is_dir():
            _download(found, folder, announced, say)
        description = check_bundle(folder, announced)
    name = f"{wanted.entity}/{wanted.project}/{wanted.name}:{version}"
    say(f"data set {name} in {folder}, fingerprint {description['fingerprint'][:12]} as announced")
    return Dataset(folder, folder / TOKENIZER, name, description["fingerprint"])


def check_reference(reference: str) -> Reference:
    """Everything that can be known to go wrong with a download, before any work starts.

    Raises:
        LitMoEError: wandb is not installed, or a name is against W&B's rules.
    """
    import_wandb()
    return parse_reference(reference)


def point_to(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """A copy of a configuration that uses a fetched data set: its text, its stores, its tokenizer."""
    paths = {f"{split}_data_path": (dataset.data_dir / split).as_posix() for split in ("train", "val")}
    data = replace(config.data, init_args={**config.data.init_args, **paths})
    return replace(config, data=data, tokenizer_dir=dataset.tokenizer_dir)


def import_wandb() -> Any:
    """The package ``wandb``.

    Raises:
        LitMoEError: it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise LitMoEError(
            'wandb is not installed: pip install "litmoe[wandb]" (in a checkout: uv sync --extra wandb)'
        ) from error
    return wandb


def project_name() -> str:
    """The project to upload to: ``WANDB_PROJECT``, else ``litmoe``."""
    return os.environ.get("WANDB_PROJECT") or "litmoe"


def unreachable(error: Exception) -> str:
    """What to say when W&B does not answer."""
    return (
        f"W&B: {one_line(error)[:200] or type(error).__name__}; check the network and wandb login, "
        "or set WANDB_MODE=offline"
    )


def _settings(wandb: Any) -> Any:
    """Quiet: what there is to say, we say; and no half-hour of trying where there is no network."""
    return wandb.Settings(silent=True, console="off", init_timeout=60)


def _policy(run: Any) -> str:
    """Whether wandb copies files before it reads them: offline it may be days until it does."""
    return "mutable" if run.offline else "immutable"


def _place(artifacts_dir: Path, reference: Reference, version: str) -> Path:
    parts = (reference.entity, reference.project, f"{reference.name}-{version}")
    return artifacts_dir.joinpath(*(re.sub(r"[^\w.-]|^\.+$", "_", part) for part in parts))


def _find(wanted: Reference) -> Any:
    """The Artifact on the server.

    Raises:
        LitMoEError: no server, or no such Artifact.
    """
    wandb = import_wandb()
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "dryrun", "disabled"):
        raise LitMoEError(
            f"W&B artifact {wanted} must be fetched from W&B's server, and WANDB_MODE is {mode}: unset it, "
            "or name a version that was fetched before, such as name:v0"
        )
    try:
        return wandb.Api().artifact(str(wanted), type=DATASET)
    except Exception as error:  # as above
        raise LitMoEError(
            f"W&B artifact {wanted} cannot be fetched: {one_line(error)[:200] or type(error).__name__}; "
            "check the name, the network and wandb login"
        ) from error


def _download(found: Any, folder: Path, announced: str | None, say: Say) -> None:
    """Fetch an Artifact beside its final place, check it, and rename it into place.

    Raises:
        LitMoEError: a file would leave the folder, or the files are not what was announced.
    """
    for name, entry in found.manifest.entries.items():
        inside(name)
        if entry.ref is not None:
            raise LitMoEError(f"the Artifact's file {name} is a reference to {entry.ref}: refused")
    building = folder.parent / f".{folder.name}.fetching"
    shutil.rmtree(building, ignore_errors=True)
    say(f"fetching {found.name} from W&B")
    try:
        try:
            found.download(root=str(building), skip_cache=True)
        except Exception as error:  # as above
            raise LitMoEError(unreachable(error)) from error
        check_bundle(building, announced)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
