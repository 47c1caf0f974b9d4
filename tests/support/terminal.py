"""A terminal for tests: a program runs on it, and what a person would see is read from its screen."""

import os
import select
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest


class Terminal:
    """A pseudo-terminal with a screen, on POSIX systems where pyte is installed; elsewhere the test is skipped."""

    def __init__(self, columns: int, rows: int) -> None:
        """The size that the program finds."""
        pyte = pytest.importorskip("pyte", reason="pyte, which reads a terminal's screen, is not installed")
        pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
        self._master, self._slave = pty.openpty()
        self.screen: Any = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        """All that the program wrote."""
        self._set_size(self._slave, columns, rows)

    def start(
        self, args: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a program on the terminal, as the leader of its session, so that Ctrl-C reaches it."""
        env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        process = subprocess.Popen(
            args,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**env, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
            preexec_fn=self._take_terminal,
        )
        os.close(self._slave)
        return process

    def read(self, until: str = "", seconds: float = 60) -> bool:
        """Show what the program writes, until a text stands on the screen or the program has closed the terminal.

        Returns:
            Whether the text was there in time.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until and until in self.text():
                return True
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                written = os.read(self._master, 1 << 16)
            except OSError:  # Linux: the program has gone
                written = b""
            if not written:
                return not until
            self.bytes += written
            self._stream.feed(written)
        return False

    def press(self, keys: str) -> None:
        """Send keys, such as ``\\x03`` for Ctrl-C."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        self.screen.resize(rows, columns)
        self._set_size(self._master, columns, rows)

    def text(self) -> str:
        """All lines: those that have left the screen at its top, and those on it."""
        above = ["".join(cell.data for _, cell in sorted(line.items())) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display])

    @staticmethod
    def _set_size(descriptor: int, columns: int, rows: int) -> None:
        import fcntl
        import termios

        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @staticmethod
    def _take_terminal() -> None:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
