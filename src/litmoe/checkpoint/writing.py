"""Writing, copying and removing checkpoints: each is whole under its final name, or it is not there.

A checkpoint is built in a hidden folder beside its final name, flushed to the disk, and renamed. One that replaces
another of the same name (`final`) is for an instant only under its hidden name, whole and on the disk, and so is
the one that it replaces: `clean` puts the newer one in place if a process was killed right then.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from litmoe.checkpoint.layout import (
    HF_CONFIG,
    MANIFEST,
    MODEL,
    MODEL_CONFIG,
    REMOVED,
    SETTINGS,
    TOKENIZER_FILES,
    TRAINER_STATE,
    Contents,
    UnreadableError,
    final_name,
    read_manifest,
    step_name,
    temporary_suffix,
    write_manifest,
)
from litmoe.checkpoint.reading import verify
from litmoe.config.dialect import to_yaml
from litmoe.errors import CheckpointError, DiskFullError, LitMoEError
from litmoe.files import flush, is_disk_full, reason_of, rename, replacing_folder
from litmoe.messages import readable
from litmoe.optim.state_size import tensors_in

TENSOR_OVERHEAD = 1024  # bytes in torch's file for name, shape and alignment; mostly less than half of it
_OTHER_FILES = 32 * 1024  # bytes of settings, manifest and the like
_CONTINUE = "--resume auto continues from the newest checkpoint"


def save(folder: Path, contents: Contents) -> list[Path]:
    """Write a checkpoint under its final name, replacing an older one of that name.

    Returns:
        Where files were moved that lay in the replaced folder and were not the checkpoint's own; mostly empty.

    Raises:
        DiskFullError: there is not enough room for it; mostly found before anything is written.
        CheckpointError: the folder cannot be written. In either case nothing is left behind, and an older
            checkpoint of that name is as it was.
    """
    require_space(folder, contents)
    moved: list[Path] = []
    with _replacing(folder, contents.step, moved) as building:
        torch.save(contents.model, building / MODEL)
        if contents.trainer is not None:
            torch.save(contents.trainer, building / TRAINER_STATE)
        if contents.hf_config is not None:
            (building / HF_CONFIG).write_text(json.dumps(contents.hf_config, indent=2), encoding="utf-8")
        for name, values in ((MODEL_CONFIG, contents.model_config), (SETTINGS, contents.settings)):
            text = to_yaml(values)
            (building / name).write_text(text, encoding="utf-8")
        if contents.tokenizer_dir is not None:
            for name in TOKENIZER_FILES:
                if (contents.tokenizer_dir / name).is_file():
                    shutil.copyfile(contents.tokenizer_dir / name, building / name)
        write_manifest(building, contents.step, contents.val_loss)
    return moved


def copy(source: Path, folder: Path) -> list[Path]:
    """The same checkpoint under a second name, by hard links where the file system has them.

    Other files in the source's folder are not copied.

    Returns:
        Where files were moved that lay in a replaced folder, as `save`.

    Raises:
        DiskFullError: it takes a real copy, and there is not enough room for it.
        CheckpointError: the source is no checkpoint, or the folder cannot be written.
    """
    manifest = verify(source, contents=False)
    moved: list[Path] = []
    with _replacing(folder, manifest["step"], moved) as building:
        for name in [*manifest["files"], MANIFEST]:
            try:
                os.link(source / name, building / name)
            except OSError:  # no hard links here (FAT, some network drives): a real copy
                shutil.copyfile(source / name, building / name)
    return moved


def size_in_bytes(contents: Contents) -> int:
    """About the size of the checkpoint's files: its tensors, and a generous ``TENSOR_OVERHEAD`` for each."""
    tensors = list(tensors_in([contents.model, contents.trainer]))
    files = [contents.tokenizer_dir / name for name in TOKENIZER_FILES] if contents.tokenizer_dir else []
    tokenizer = sum(path.stat().st_size for path in files if path.is_file())
    # torch.save writes memory that several tensors share once, and all of it.
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)}
    return sum(storages.values()) + TENSOR_OVERHEAD * len(tensors) + tokenizer + _OTHER_FILES


def require_space(folder: Path, contents: Contents) -> None:
    """Refuse to begin a checkpoint that the disk has no room for.

    Raises:
        DiskFullError: says how much is needed and free, and what to do.
    """
    needed, free = size_in_bytes(contents), free_bytes(folder)
    if free is not None and free < needed:
        raise DiskFullError(
            f"{folder}: not written, it needs {readable(needed)} and the disk has {readable(free)} free: "
            f"free some, or keep fewer checkpoints with --checkpoint.keep-last; {_CONTINUE}"
        )


def free_bytes(path: Path) -> int | None:
    """Free space on the disk of a path, which need not exist yet; None if the system does not say."""
    path = path.absolute()
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        return shutil.disk_usage(path).free
    except OSError:
        return None


def remove(folder: Path) -> None:
    """Remove a checkpoint: first its manifest, in one operation, then the files that the manifest names.

    So there is no instant with half a checkpoint. Other files in the folder stay, and the folder with them.

    Raises:
        CheckpointError: it is not a checkpoint, or the disk refuses; `clean` finishes what was begun.
    """
    verify(folder, contents=False)
    try:
        rename(folder / MANIFEST, folder / REMOVED)
        flush(folder)
        _finish_removal(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: could not be removed: {reason_of(error)}") from error


def clean(out_dir: Path) -> None:
    """Bring a run's folder in order after a kill: finish removals, drop what was being written.

    A whole checkpoint that only lacked its final name gets it, if no other has it. Folders that litmoe did not
    make are left alone.

    Raises:
        CheckpointError: a checkpoint under a hidden name cannot be read, or not be renamed.
    """
    for marker in out_dir.glob(f"step-*/{REMOVED}"):
        with contextlib.suppress(OSError):
            _finish_removal(marker.parent)
    for folder in out_dir.glob("step-*"):
        with contextlib.suppress(OSError):  # usually not empty; the last operation of a removal
            folder.rmdir()
    unfinished = [path for path in out_dir.glob(".*") if final_name(path.name)]
    for path in sorted(unfinished, key=lambda path: path.name.endswith("-old")):  # the newer ones first
        folder = path.with_name(final_name(path.name) or "")
        if not folder.exists() and _is_whole(path):
            try:
                rename(path, folder)
            except OSError as error:
                raise CheckpointError(
                    f"{path}: could not be renamed to {folder.name}: {reason_of(error)}"
                ) from error
        shutil.rmtree(path, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except UnreadableError:
        raise
    except CheckpointError:
        return False
    return True


@contextmanager
def _replacing(folder: Path, step: int, moved: list[Path]) -> Iterator[Path]:
    """A hidden folder that takes the place of ``folder`` when its files are written and on the disk.

    ``moved`` gets the folder with other files that lay in the one replaced, if there were any.
    """
    try:
        with replacing_folder(folder, temporary_suffix()) as building:
            try:
                yield building
            except RuntimeError as error:
                raise _disk_error(building) or error from error
            if kept := _move_other_files(folder, step):
                moved.append(kept)
    except LitMoEError:
        raise
    except (OSError, RuntimeError) as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"{folder}: not written, {reason_of(error)}: free some; {_CONTINUE}"
            ) from error
        raise CheckpointError(f"{folder}: checkpoint could not be written: {reason_of(error)}") from error


def _disk_error(building: Path) -> OSError | None:
    """Why the disk takes no more data; torch says of any trouble only that its file's length is wrong."""
    try:
        with (building / "probe").open("wb") as file:
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


def _move_other_files(folder: Path, step: int) -> Path | None:
    """Move what is not the checkpoint's own out of a folder that is about to be replaced.

    LitGPT's commands put results and converted weights into a checkpoint. They are somebody's work, and do not
    belong to the weights that replace these: they go into a new folder such as ``final.before-step-00000020``.

    Returns:
        That folder; None if there was nothing to move.
    """
    if not folder.is_dir():
        return None
    try:
        own = {*read_manifest(folder)[1], MANIFEST}
    except CheckpointError:  # no checkpoint of litmoe's: all of it is somebody's
        own = set()
    others = [path for path in sorted(folder.iterdir()) if path.name not in own]
    if not others:
        return None
    kept = folder.with_name(f"{folder.name}.before-{step_name(step)}")
    number = 1
    while os.path.lexists(kept):
        number += 1
        kept = kept.with_name(f"{folder.name}.before-{step_name(step)}-{number}")
    kept.mkdir()
    for path in others:
        rename(path, kept / path.name)
    return kept


def _finish_removal(folder: Path) -> None:
    """Remove the files that a marked folder's manifest names, the mark, and the folder if it is empty then."""
    try:
        names = list(json.loads((folder / REMOVED).read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # litmoe did not write it
    for name in names:
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    (folder / REMOVED).unlink()
    with contextlib.suppress(OSError):  # other files lie there
        folder.rmdir()
