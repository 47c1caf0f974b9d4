"""What a command prints: lines on stdout, warnings on stderr, and never a reason for the work to end."""

import os
import sys
from contextlib import suppress
from typing import TextIO


class Console:
    """The streams of a command, safe to print to.

    Nothing here raises. A character that the stream's encoding lacks is written as its escape (``\\u2019``).
    When a stream cannot be written to (the reader of a pipe has gone, the disk is full), stderr says so once,
    that stream stays mute, and the work goes on; ``lost`` tells the command, which chooses its exit code.
    """

    def __init__(self, program: str = "litmoe") -> None:
        self.program = program
        self.lost: OSError | None = None
        """Why stdout could not be written to; None: it could."""
        self._warnings_lost = False
        for stream in (sys.stdout, sys.stderr):  # for what libraries print
            if hasattr(stream, "reconfigure"):
                with suppress(OSError, ValueError):
                    stream.reconfigure(errors="backslashreplace")

    def say(self, line: str) -> None:
        """Print one line."""
        self.write(line + "\n")

    def write(self, text: str) -> None:
        """Print a piece of text as it is, at once."""
        if self.lost is not None:
            return
        try:
            _write(sys.stdout, text)
        except OSError as error:
            self.lost = error
            _discard(sys.stdout)
            if not self.reader_left:
                self.warn(f"stdout cannot be written to ({error.strerror}): its output ends here")

    def warn(self, line: str) -> None:
        """Print one line on stderr, beside the output."""
        if self._warnings_lost:
            return
        try:
            _write(sys.stderr, line + "\n")
        except OSError:
            self._warnings_lost = True
            _discard(sys.stderr)

    @property
    def reader_left(self) -> bool:
        """Whether stdout was a pipe whose reader, such as ``head``, has ended."""
        return isinstance(self.lost, BrokenPipeError)


def _write(stream: TextIO | None, text: str) -> None:
    """Write and flush: what stays in a buffer fails only at the end, where nobody can say so."""
    if stream is None:  # a program without a console (pythonw, a closed descriptor)
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except ValueError as error:  # somebody has closed it
        raise OSError(0, "it is closed") from error
    stream.flush()


def _discard(stream: TextIO | None) -> None:
    """Send a broken stream to nowhere: Python flushes it once more at exit, and would fail again."""
    with suppress(OSError, ValueError, AttributeError):
        assert stream is not None
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
