"""The output folder of a run: it can be written, and one run at a time writes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from litmoe.distributed.collective import is_first_process
from litmoe.errors import LitMoEError


@contextmanager
def locked(out_dir: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system lets go of when the process ends, however it ends.

    Only the first process of a run takes it.

    Raises:
        LitMoEError: another run holds it, or the folder cannot be written.
    """
    if not is_first_process():
        yield
        return
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out_dir / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise LitMoEError(
            f"{out_dir}: another run is writing there: wait for it to end, or choose another --out-dir"
        ) from None
    except OSError as error:
        raise LitMoEError(
            f"{out_dir}: cannot be written ({error.strerror}): choose another --out-dir"
        ) from error
    try:
        yield
    finally:
        lock.release()
