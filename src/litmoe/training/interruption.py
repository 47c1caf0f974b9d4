"""Signals that ask a run to end: it finishes its step, saves, and says how to go on."""

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from litmoe.errors import RunInterrupted

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGUSR1")
    if hasattr(signal, name)
]
"""SIGINT is Ctrl-C; SIGTERM is what ``kill``, a pre-empting SLURM and a shutdown send; SIGHUP comes when the
terminal is closed; SIGBREAK is Ctrl-Break on Windows; SIGUSR1 is what SLURM can be asked to send ahead of a time
limit."""


SAME_REQUEST_SECONDS = 1.0
"""Signals within this time are one request: a launcher passes on what the terminal has sent already."""

_HANGUP = getattr(signal, "SIGHUP", None)


class Interruption:
    """While it is entered, the first signal is a request that the training loop reads after its step.

    A second request leaves at once, even if the main thread is inside a long operation or waits for another
    process: Python calls a handler only between two instructions of the main thread, so a thread of its own
    listens to what the system's handler writes (``signal.set_wakeup_fd``). Checkpoints and metrics are whole at
    any instant. A closed terminal is never a second request: shell and system each send SIGHUP then, as often as
    they like. Where SIGHUP is ignored, as by ``nohup``, it stays ignored. Outside the main thread Python takes no
    handlers, and none are set.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The signal that asked for the end; None if none has."""
        self.in_place = False
        """Whether stderr has a view that is drawn over itself: what is said stays on the cursor's line."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        listener, writer = socket.socketpair()
        writer.setblocking(False)
        self._writer = writer
        self._wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(listener,), name="signals", daemon=True).start()
        for number in SIGNALS:
            if number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._writer.close()  # which ends the thread
        self._before = {}

    def ask(self, number: int) -> None:
        """Ask for the end in the name of a signal that another rank got."""
        self.signal = self.signal or signal.Signals(number)

    def end(self, step: int, folder: Path) -> RunInterrupted:
        """The exception to leave the loop with, once all is saved that can be.

        Args:
            step: the last one.
            folder: its checkpoint, which is not there if the disk had no room.
        """
        assert self.signal is not None
        saved = f"saved {folder}; --resume auto goes on"
        if not folder.exists():
            saved = (
                "not saved, for want of room on the disk; --resume auto goes on from the newest checkpoint"
            )
        return RunInterrupted(
            f"stopped by {self.signal.name} after step {step}; {saved}", exit_code=128 + self.signal
        )

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.ask(number)  # the thread does the rest

    def _listen(self, listener: socket.socket) -> None:
        """Count what comes, one byte a signal; other signals' handlers write here too."""
        asked_at = None
        with listener:
            while byte := listener.recv(1):
                if byte[0] not in self._before:
                    continue
                if asked_at is not None:
                    if byte[0] != _HANGUP and time.monotonic() - asked_at > SAME_REQUEST_SECONDS:
                        self._tell("\n" if self.in_place else "")
                        os._exit(128 + byte[0])
                    continue
                asked_at = time.monotonic()
                self.ask(byte[0])
                text = "finishing this step and saving; the same again leaves at once"
                self._tell(f"\r\x1b[2K{text}" if self.in_place else f"\n{text}\n")

    @staticmethod
    def _tell(text: str) -> None:
        with contextlib.suppress(OSError):  # stderr may have gone with the terminal
            os.write(2, text.encode())
