"""A folder that appears whole or not at all: built beside its final name, then renamed into place."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from litmoe.errors import LitMoEError


@contextmanager
def only_one_process(target: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock on ``target`` while the block runs; other processes wait for it.

    The operating system drops the lock when its holder dies, so a killed run never blocks the next.
    The empty lock file stays behind on purpose: removing it would let two waiters both "hold" it.

    Raises:
        LitMoEError: The folder above ``target`` cannot be made or written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that is writing {target}")
            lock.acquire()
    except OSError as error:
        raise LitMoEError(
            f"cannot write in {target.parent}: {error.strerror or error}; choose another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_folder(target: Path, own: Collection[str], what: str) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well it becomes ``target``, replacing an older one.

    Call it under :func:`only_one_process`, which makes any unfinished folder found here a dead run's.

    Args:
        target: The final name.
        own: Names of the files which this code may have put in ``target``. One that holds anything else
            is somebody else's and is left alone.
        what: What ``target`` is, for messages ("token store").

    Raises:
        LitMoEError: ``target`` is not ours to replace, or the disk refuses.
    """
    refuse_foreign(target, own, what)
    building = target.parent / f".{target.name}.building"
    old = target.parent / f".{target.name}.old"
    try:
        for left_over in (building, old):
            if left_over.exists():
                shutil.rmtree(left_over)
        building.mkdir(parents=True)
        try:
            yield building
            for file in building.iterdir():
                _flush_to_disk(file)
            if target.exists():
                target.rename(old)
            building.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            shutil.rmtree(building, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LitMoEError(
            f"cannot write the {what} {target}: {reason}; check space and permissions, "
            "and that no other program has it open"
        ) from error


def refuse_foreign(target: Path, own: Collection[str], what: str) -> None:
    """Raise unless ``target`` is missing, empty, or holds nothing but files named in ``own``.

    Raises:
        LitMoEError: ``target`` is a file, or a folder with something else in it.
    """
    if target.is_dir():
        foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in own)
        if foreign:
            raise LitMoEError(
                f"{target} holds files that are not a {what} of litmoe ({', '.join(foreign[:3])}); "
                "move them away or choose another folder"
            )
    elif target.exists():
        raise LitMoEError(f"{target} is a file where a {what} folder should be; move it away")


def _flush_to_disk(file: Path) -> None:
    """Make sure the bytes are on the disk before the name is: a power cut must not leave a hollow file."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
