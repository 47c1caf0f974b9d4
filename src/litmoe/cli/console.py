"""What a command prints: lines on stdout, warnings on stderr, and never a reason for the work to end."""

import os
import sys
from contextlib import suppress
from typing import TextIO


class OutputEndedError(Exception):
    """Nobody can read what a command is for; it may end early."""


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
        _fill_closed_descriptors()
        for stream in (sys.stdout, sys.stderr):  # for what libraries print
            if hasattr(stream, "reconfigure"):
                with suppress(OSError, ValueError):
                    stream.reconfigure(errors="backslashreplace")

    def say(self, line: str) -> None:
        """Print one line."""
        self.write(line + "\n")

    def say_or_fail(self, line: str) -> None:
        """Print one line, for work that keeps account of what it could not show, and goes on.

        Raises:
            OSError: stdout cannot be written to.
        """
        self.say(line)
        if self.lost is not None:
            raise self.lost

    def write(self, text: str) -> None:
        """Print a piece of text as it is, at once."""
        if self.lost is not None:
            return
        try:
            _write(sys.stdout, text)
        except OSError as error:
            self.lose(error)

    def lose(self, error: OSError) -> None:
        """Give stdout up, and say so, unless its reader has just seen enough."""
        self.lost = error
        _discard(sys.stdout)
        if not self.reader_left:
            self.warn(
                f"{self.program}: stdout cannot be written to ({error.strerror}); nothing more is printed"
            )

    def warn(self, line: str) -> None:
        """Print one line on stderr, beside the output."""
        if self._warnings_lost:
            return
        try:
            _write(sys.stderr, line + "\n")
        except OSError:
            self._warnings_lost = True
            _discard(sys.stderr)

    def write_or_end(self, text: str) -> None:
        """Print a piece of text that the command is for: without stdout, it need not go on.

        Raises:
            OutputEndedError: stdout cannot be written to.
        """
        self.write(text)
        if self.lost is not None:
            raise OutputEndedError

    @property
    def reader_left(self) -> bool:
        """Whether stdout was a pipe whose reader, such as ``head``, has ended."""
        return isinstance(self.lost, BrokenPipeError)

    def exit_code(self, result_is_printed: bool) -> int:
        """1 where what a command is for was printed and is lost; a reader that has seen enough is no loss."""
        return int(result_is_printed and self.lost is not None and not self.reader_left)


def _fill_closed_descriptors() -> None:
    """Open the standard descriptors that were closed (``<&- >&- 2>&-``) on nothing.

    The next file to be opened would get their numbers, and what libraries print to 1 and 2 would end up in it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


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
