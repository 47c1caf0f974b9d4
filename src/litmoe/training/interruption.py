"""Signals that ask a run to end: it finishes its step, saves, and says how to go on."""

import os
import signal
from types import FrameType
from typing import Any

from litmoe.errors import RunInterrupted

# SIGBREAK is Ctrl-Break on Windows, and what a process group there can be sent.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGUSR1") if hasattr(signal, name)
]


class Interruption:
    """While it is entered, the first signal is a request that the training loop reads after its step.

    SIGINT is Ctrl-C; SIGTERM is what ``kill``, a pre-empting SLURM and a shutdown send; SIGUSR1 is what SLURM can
    be asked to send ahead of a time limit. A second signal leaves at once: checkpoints and metrics are whole at
    any instant. Outside the main thread Python takes no handlers, and none are set.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        try:
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        os.write(2, b"\nfinishing this step and saving; the same again leaves at once\n")

    def end(self, step: int, folder: object) -> RunInterrupted:
        """The exception to leave the loop with, once all is saved."""
        assert self.signal is not None
        return RunInterrupted(
            f"stopped by {self.signal.name} after step {step}; saved {folder}; --resume auto goes on",
            exit_code=128 + self.signal,
        )
