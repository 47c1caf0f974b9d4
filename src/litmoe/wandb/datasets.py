"""Data sets through Weights & Biases: uploaded as an Artifact, fetched and checked, used by a run."""

import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litmoe.config import TrainConfig
from litmoe.errors import ConfigError, DataError, DiskFullError, LitMoEError
from litmoe.files import is_disk_full, only_one_process, reason_of, replacing_folder
from litmoe.messages import Say, one_line, readable, silent
from litmoe.progress_bar import watched
from litmoe.wandb.access import check_access, import_wandb, mode, project_name, unreachable
from litmoe.wandb.bundle import DESCRIPTION, TOKENIZER, bundle_of, check_bundle, inside, not_sent
from litmoe.wandb.names import Reference, check_aliases, check_artifact, parse_reference

DATASET = "dataset"


@dataclass(frozen=True)
class Dataset:
    """A data set that was fetched from W&B."""

    data_dir: Path
    tokenizer_dir: Path
    artifact: str
    """``entity/project/name:version``."""
    fingerprint: str


def upload_wanted(asked: bool) -> bool:
    """Whether to upload a data set: asked for by a flag, or by ``WANDB_LOG_DATASET=1``.

    Raises:
        ConfigError: the variable says neither yes nor no.
    """
    variable = os.environ.get("WANDB_LOG_DATASET", "").lower()
    if variable not in ("", "0", "false", "no", "1", "true", "yes"):
        raise ConfigError(f"WANDB_LOG_DATASET: expected 1 or 0, got {variable!r}")
    return asked or variable in ("1", "true", "yes")


def check_upload(artifact: str, aliases: Sequence[str] = ()) -> None:
    """Everything that can be known to go wrong with an upload, before any work starts.

    Raises:
        LitMoEError: a name is against W&B's rules, or what :func:`litmoe.wandb.access.check_access` finds.
    """
    check_artifact(artifact)
    check_aliases(aliases)
    check_access()


def upload_dataset(
    data_dir: Path, tokenizer_dir: Path, artifact: str, aliases: Sequence[str] = (), say: Say = silent
) -> str:
    """Upload a prepared data set as an Artifact of type ``dataset``.

    With ``WANDB_MODE=offline`` it is saved on this machine, for ``wandb sync``.

    Args:
        data_dir: the prepared data folder: all of its text and token stores are sent.
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
    for line in not_sent(data_dir, bundle):
        say(f"not uploaded: {line}")
    wandb = import_wandb()
    metadata = {key: value for key, value in bundle.description.items() if key != "files"}
    with tempfile.TemporaryDirectory(prefix="litmoe-wandb-") as scratch:
        listing = Path(scratch, DESCRIPTION)
        listing.write_text(json.dumps(bundle.description, indent=1) + "\n", encoding="utf-8")
        try:
            # An id of its own: WANDB_RUN_ID may name a run that trains.
            run = wandb.init(
                project=project_name(), job_type="prepare", id=uuid.uuid4().hex[:8], settings=_settings(wandb)
            )
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
    size = readable(sum(path.stat().st_size for path in bundle.files.values()))
    what = f"{len(bundle.files) + 1} files, {size}, fingerprint {bundle.fingerprint[:12]}"
    if run.disabled:
        say(f"WANDB_MODE is disabled: {artifact} ({what}) was not uploaded")
    elif run.offline:
        say(f"saved {artifact} offline ({what}); upload it with: wandb sync {Path(run.dir).parent}")
    else:
        say(f"uploaded {artifact} ({what}) to {run.entity}/{run.project}")
    return bundle.fingerprint


def fetch_dataset(reference: str, artifacts_dir: Path, say: Say = silent) -> Dataset:
    """The data set of an Artifact, downloaded once and checked every time.

    It lies in ``artifacts_dir/entity/project/name-version``. An Artifact is data from outside: its files' names
    must stay inside that folder, and all of them must be what its fingerprint says.

    Raises:
        LitMoEError: a bad reference, no wandb, no server, not a data set of litmoe, or a fingerprint that does
            not match.
    """
    wanted = parse_reference(reference)
    folder, found = _fetched(artifacts_dir, wanted), None
    if folder is None:
        found = _find(wanted)
        version = str(found.version)
        if not _is_version(version):
            raise LitMoEError(f"W&B artifact {wanted}: unexpected version {version!r}")
        folder = _place(artifacts_dir, wanted, version)
    announced = str(found.metadata.get("fingerprint")) if found is not None else None
    with only_one_process(folder, say):
        if not folder.is_dir():
            _download(found, folder, announced, say)
        try:
            description = check_bundle(folder, announced)
        except LitMoEError as error:
            raise DataError(f"{error}; remove that folder to fetch the data set again") from error
    name = (
        f"{wanted.entity}/{wanted.project}/{folder.name.rpartition('-')[0]}:{folder.name.rpartition('-')[2]}"
    )
    say(f"data set {name} in {folder}, fingerprint {description['fingerprint'][:12]}: all files are as sent")
    return Dataset(folder, folder / TOKENIZER, name, description["fingerprint"])


def check_reference(reference: str, artifacts_dir: Path | None = None) -> Reference:
    """Everything that can be known to go wrong with a download, before any work starts.

    Args:
        reference: the Artifact.
        artifacts_dir: where fetched data sets lie. A version that lies there needs no server.

    Raises:
        LitMoEError: a name is against W&B's rules, or what :func:`litmoe.wandb.access.check_access` finds.
    """
    import_wandb()
    wanted = parse_reference(reference)
    if artifacts_dir is not None and _fetched(artifacts_dir, wanted) is None and check_access() != "online":
        raise LitMoEError(_needs_server(wanted))
    return wanted


def point_to(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """A copy of a configuration that uses a fetched data set: its text, its stores, its tokenizer."""
    paths = {f"{split}_data_path": (dataset.data_dir / split).as_posix() for split in ("train", "val")}
    data = replace(config.data, init_args={**config.data.init_args, **paths})
    return replace(config, data=data, tokenizer_dir=dataset.tokenizer_dir)


def _settings(wandb: Any) -> Any:
    """Silence wandb's own output, and give up after 60 s without a network."""
    return wandb.Settings(silent=True, console="off", init_timeout=60)


def _policy(run: Any) -> str:
    """Whether wandb copies files before it reads them: offline it may be days until it does."""
    return "mutable" if run.offline else "immutable"


def _is_version(alias: str) -> bool:
    return re.fullmatch(r"v\d+", alias) is not None


def _place(artifacts_dir: Path, reference: Reference, version: str) -> Path:
    parts = (reference.entity, reference.project, f"{reference.name}-{version}")
    return artifacts_dir.joinpath(*(re.sub(r"[^\w.-]|^\.+$", "_", part) for part in parts))


def _fetched(artifacts_dir: Path, wanted: Reference) -> Path | None:
    """The folder of a version that was fetched before; None for another, or for an alias, which may move."""
    if not _is_version(wanted.alias):
        return None
    folder = _place(artifacts_dir, wanted, wanted.alias)
    return folder if folder.is_dir() else None


def _needs_server(wanted: Reference) -> str:
    return (
        f"W&B artifact {wanted} must be fetched from W&B's server, and WANDB_MODE is "
        f"{os.environ.get('WANDB_MODE') or 'offline'}: unset it, or name a version that was fetched before, "
        "such as name:v0"
    )


def _find(wanted: Reference) -> Any:
    """The Artifact on the server.

    Raises:
        LitMoEError: no server, or no such Artifact.
    """
    wandb = import_wandb()
    if mode() != "online":
        raise LitMoEError(_needs_server(wanted))
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
        DiskFullError: the disk has no room for it.
        LitMoEError: a file would leave the folder, or the files are not what was announced.
    """
    for name, entry in found.manifest.entries.items():
        inside(name)
        if entry.ref is not None:
            raise LitMoEError(f"the Artifact's file {name} is a reference to {entry.ref}: refused")
    say(f"fetching {found.name} from W&B")
    try:
        with replacing_folder(folder, ".fetching") as building:
            with _bars_on_terminals_only():
                found.download(root=str(building), skip_cache=True)
            check_bundle(building, announced)
    except LitMoEError:
        raise
    except Exception as error:  # as above
        if is_disk_full(error):
            raise DiskFullError(f"{folder}: {reason_of(error)}: free some space") from error
        raise LitMoEError(unreachable(error)) from error


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Keep wandb's count of files out of logs and pipes, where it would be a line every tenth of a second."""
    wandb = import_wandb()
    if watched():
        yield
        return
    wandb.termsetup(wandb.Settings(show_info=False), None)
    try:
        yield
    finally:
        wandb.termsetup(wandb.setup().settings, None)
