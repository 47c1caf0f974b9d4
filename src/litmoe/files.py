"""Files and folders that appear whole or not at all, and one process at a time to write them.

Whatever litmoe writes is built beside its final name, flushed to the disk, and renamed into place. A reader never
sees half of it, and neither a killed process nor a power cut leaves half of it under the final name.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from litmoe.errors import DiskFullError, LitMoEError

_DISK_IS_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NO_FLUSH_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # some network file systems
_RETRIES_ON_WINDOWS = (0.1, 0.3, 1.0, 3.0)  # seconds between attempts


@contextmanager
def whole_file(path: Path, advice: str = "") -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; when the block ends well, that file takes its place.

    The folder is made if need be. A link is followed: the file that it points to is replaced.

    Args:
        path: The final name.
        advice: What to do if it cannot be written, to end the message with.

    Raises:
        DiskFullError: The disk has no room for it.
        LitMoEError: It cannot be written. In either case an older file of that name is as it was.
    """
    target = _without_links(path)
    building = target.with_name(f".{target.name}.building")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield building
        flush(building)
        rename(building, target)
        flush(target.parent)
    except LitMoEError:
        raise
    except OSError as error:
        raise unwritable(path, error, advice) from error
    finally:
        with contextlib.suppress(OSError):
            building.unlink(missing_ok=True)


def write_text(path: Path, text: str, advice: str = "") -> None:
    """Write a text file in UTF-8 with plain line ends, whole or not at all; errors as :func:`whole_file`."""
    with whole_file(path, advice) as building:
        building.write_text(text, encoding="utf-8", newline="\n")


def check_writable(path: Path, advice: str = "") -> None:
    """Find out before long work whether a file can be written at its end; makes nothing.

    Raises:
        LitMoEError: there is a folder of that name, or no permission to write.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file")
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, f"no permission to write in {folder}")
    except OSError as error:
        raise unwritable(path, error, advice) from error


@contextmanager
def whole_folder(target: Path, own: Collection[str], what: str) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well it becomes ``target``, replacing an older one.

    Call it under :func:`only_one_process`: then an unfinished folder found here belongs to a dead process.

    Args:
        target: The final name.
        own: Names of the files that this code may have put in ``target``. A folder that holds anything else
            belongs to somebody else and is left alone.
        what: What ``target`` is, for messages ("token store").

    Raises:
        LitMoEError: ``target`` is not litmoe's to replace, or the disk refuses (DiskFullError if it is full).
    """
    refuse_foreign(target, own, what)
    try:
        with replacing_folder(target, ".building") as building:
            yield building
    except LitMoEError:
        raise
    except OSError as error:
        advice = "check space and permissions, and that no other program has it open"
        message = f"cannot write the {what} {target}: {reason_of(error)}; {advice}"
        raise (DiskFullError if is_disk_full(error) else LitMoEError)(message) from error


@contextmanager
def replacing_folder(target: Path, suffix: str) -> Iterator[Path]:
    """Yield an empty folder ``.NAME`` plus ``suffix`` to fill, and let it take the place of ``target``.

    Python cannot exchange two folders in one operation. An older ``target`` is first renamed to the hidden name
    plus ``-old``; a process that dies in that instant leaves both folders whole under their hidden names, and the
    next call puts the older one back.

    Raises:
        OSError: The disk refuses; ``target`` is as it was, and the folder beside it is gone.
    """
    target = _without_links(target)
    building = target.with_name(f".{target.name}{suffix}")
    replaced = building.with_name(f"{building.name}-old")
    try:
        if replaced.exists() and not target.exists():
            rename(replaced, target)
        for left_over in (building, replaced):
            if left_over.exists():
                shutil.rmtree(left_over)
        building.mkdir(parents=True)
        yield building
        _flush_all(building)
        if target.exists():
            if not target.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "a file of that name is in the way")
            rename(target, replaced)
            try:
                rename(building, target)
            except OSError:
                rename(replaced, target)
                raise
        else:
            rename(building, target)
        flush(target.parent)  # the older one is needed until the new name is on the disk
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def refuse_foreign(target: Path, own: Collection[str], what: str) -> None:
    """Raise unless ``target`` is missing, empty, or holds nothing but files named in ``own``.

    Raises:
        LitMoEError: ``target`` is a file, a folder with something else in it, or cannot be read.
    """
    try:
        if target.is_dir():
            foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in own)
            if foreign:
                raise LitMoEError(
                    f"{target} holds files that are not a {what} of litmoe ({', '.join(foreign[:3])}); "
                    "move them away or choose another folder"
                )
        elif target.exists():
            raise LitMoEError(f"{target} is a file where a {what} folder should be; move it away")
    except OSError as error:
        raise LitMoEError(f"{target}: cannot be read: {reason_of(error)}; check its permissions") from error


@contextmanager
def only_one_process(target: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock on ``target`` while the block runs; other processes wait for it.

    Raises:
        LitMoEError: The folder above ``target`` cannot be made or written.
    """
    waiting = f"waiting for another process that is writing {target}"
    with hold_lock(target.with_name(f".{target.name}.lock"), lambda: say(waiting)):
        yield


@contextmanager
def hold_lock(path: Path, when_held: Callable[[], object]) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs.

    The operating system drops the lock when its holder dies, so a killed process never blocks the next. The empty
    file stays behind on purpose: if it were removed, two waiting processes could both "hold" it.

    Args:
        path: The lock file; its folder is made if need be.
        when_held: Called if another process holds the lock: it raises, or it returns to wait for the lock.

    Raises:
        LitMoEError: The folder cannot be made or written, or its file system has no locks.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        when_held()
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise LitMoEError(
            f"cannot write in {path.parent}: {reason_of(error)}; choose another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def rename(path: Path, to: Path) -> None:
    """Rename a file or folder, replacing a file of that name.

    On Windows try again for a few seconds while a virus scanner or a reader has a file open.

    Raises:
        OSError: The disk refuses.
    """
    for seconds in _RETRIES_ON_WINDOWS if os.name == "nt" else ():
        with contextlib.suppress(PermissionError):
            path.replace(to)
            return
        time.sleep(seconds)
    path.replace(to)


def flush(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk.

    Raises:
        OSError: The disk refuses.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows has no handle on a folder to flush
        return
    # Windows flushes only what it may write.
    descriptor = os.open(path, os.O_RDWR | os.O_BINARY if os.name == "nt" else os.O_RDONLY)  # type: ignore[attr-defined,unused-ignore]
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in _NO_FLUSH_OF_FOLDERS):
            raise
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError, advice: str = "") -> LitMoEError:
    """The error to raise for a file that cannot be written: one line, with the system's reason."""
    message = f"{path}: cannot be written: {reason_of(error)}"
    if is_disk_full(error):
        return DiskFullError(f"{message}; free some space")
    return LitMoEError(f"{message}; {advice}" if advice else message)


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, has no more room."""
    return isinstance(error, OSError) and error.errno in _DISK_IS_FULL


def reason_of(error: BaseException) -> str:
    """The system's own words for an error, else its first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return getattr(error, "strerror", None) or lines[0]


def _flush_all(folder: Path) -> None:
    """Flush every file and folder below: a power cut must not leave a hollow file under a good name."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def _without_links(path: Path) -> Path:
    """Where a link points to, so that it stays a link; the path itself if it is none."""
    return path.resolve() if path.is_symlink() else path
