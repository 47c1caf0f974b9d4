"""A process that holds a lock; a spawned one imports it by this name."""

import multiprocessing.synchronize
from pathlib import Path

from litmoe.files import only_one_process


def hold(
    folder: str, held: "multiprocessing.synchronize.Event", end: "multiprocessing.synchronize.Event"
) -> None:
    """Hold the lock of ``folder/store`` until ``end`` is set, for a minute at most."""
    with only_one_process(Path(folder) / "store", print):
        held.set()
        end.wait(60)
