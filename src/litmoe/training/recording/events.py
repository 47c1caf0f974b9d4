"""What is unusual in a run, in ``events.jsonl``; and a guard around all that only shows something.

A line of the file is one event: a JSON object with ``kind``, ``step``, ``time`` (seconds since 1970, UTC),
``message`` (one line for a person) and ``figures`` (an object, empty if there are none). Lines are only added,
those of a resumed run after those before it. Kinds:

- ``start``, ``resume``, ``interrupted``, ``finished``: how the run came and went
- ``saved``, ``checkpoint_skipped``: a checkpoint is on the disk, or the disk had no room for it
- ``skip``, ``spike``, ``rollback``: a bad step, and what was done
- ``shrink``: memory ran out, and the micro-batch was halved
- ``dead_experts``: experts that no token goes to
- ``metrics_delayed``: rows of ``metrics.csv`` wait for room on the disk
- ``output_failed``, ``logger_failed``, ``sample_failed``, ``record_failed``: something could not be shown or
  recorded; training went on
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from litmoe.errors import LitMoEError
from litmoe.files import reason_of
from litmoe.messages import Say, one_line, silent

EVENTS = "events.jsonl"

_MOST_WAITING = 1000
"""Events that may wait for the file, or for room on the disk."""

Figure = float | int | str | bool | None


@dataclass(frozen=True)
class Event:
    """One unusual thing."""

    kind: str
    step: int
    """Steps done when it happened."""
    message: str
    time: float
    """Seconds since 1970, UTC."""
    figures: dict[str, Figure] = field(default_factory=dict)


class EventLog:
    """Takes the lines and events of a run. None of its methods raises: what is shown must not end the work.

    Events that happen before :meth:`open` wait for it, and so do those that a full disk does not take.
    """

    def __init__(
        self, say: Say = silent, watch: Callable[[str, str], None] = lambda kind, message: None
    ) -> None:
        """
        Args:
            say: takes the lines for a person. After the first that it fails on it gets no more.
            watch: is shown the kind and message of every event, besides.
        """
        self.step = 0
        """Of the events to come; whoever counts steps sets it."""
        self._say, self._watch = say, watch
        self._failed: set[str] = set()
        self._pending: list[Event] = []
        self._file: BinaryIO | None = None

    def say(self, line: str) -> None:
        """Pass a line on to whoever watches."""
        self.show("output_failed", lambda: self._say(line), "training goes on without its output")

    def add(
        self,
        kind: str,
        message: str,
        *,
        step: int | None = None,
        figures: Mapping[str, Figure] | None = None,
        said: bool = True,
    ) -> None:
        """Record an event, and say its message.

        Args:
            kind: one of those that the module lists.
            message: for a person, in one line.
            step: that it belongs to; None: the present one.
            figures: numbers and names that belong to it.
            said: False: it is recorded only, because it is said in other words.
        """
        step = self.step if step is None else step
        self._pending.append(Event(kind, step, one_line(message), round(time.time(), 3), dict(figures or {})))
        del self._pending[:-_MOST_WAITING]
        self._write()
        self.show("output_failed", lambda: self._watch(kind, message), "training goes on without its output")
        if said:
            self.say(message)

    def show(self, kind: str, task: Callable[[], object], consequence: str) -> bool:
        """Do what only shows something. Its first failure is an event, and it is not tried again.

        Args:
            kind: of the event; all tasks of a kind stop together.
            task: what may fail.
            consequence: what a failure means, to end the message with.

        Returns:
            Whether it worked.
        """
        if kind in self._failed:
            return False
        try:
            task()
        except Exception as error:  # consoles, bars, loggers and their servers raise anything
            self._failed.add(kind)
            reason = one_line(error)[:300] or type(error).__name__
            self.add(kind, f"{type(error).__name__}: {reason}; {consequence}")
            return False
        return True

    def open(self, folder: Path) -> None:
        """Write to a run's folder from now on, what has happened until now included."""
        with suppress(OSError):
            self._file = (folder / EVENTS).open("ab", buffering=0)
            if self._file.tell() and not _ends_with_a_line(folder / EVENTS):
                self._file.write(b"\n")
        self._write()

    def close(self) -> None:
        """Close the file."""
        self._write()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self) -> None:
        """Add what is pending, line by line; what the disk does not take is tried again with the next event."""
        while self._file is not None and self._pending:
            line = json.dumps(asdict(self._pending[0]), ensure_ascii=False, default=str)
            # half a character of a file's name becomes its escape, which JSON has too
            data = line.encode("utf-8", "backslashreplace") + b"\n"
            size = self._file.tell()
            try:
                if self._file.write(data) != len(data):
                    raise OSError("the disk is full")
            except OSError:
                with suppress(OSError):
                    self._file.truncate(size)
                return
            del self._pending[0]


def read_events(path: Path) -> list[Event]:
    """The events of a run, oldest first; none if there is no file.

    Lines that are no event are skipped: the last one of a killed run may be half there.

    Args:
        path: ``events.jsonl``, or the run's folder.

    Raises:
        LitMoEError: the file cannot be read.
    """
    path = path / EVENTS if path.is_dir() else path
    events = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError, TypeError, KeyError, AttributeError):
                    events.append(_event(json.loads(line)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LitMoEError(f"{path}: cannot be read: {reason_of(error)}") from error
    return events


def _event(entry: dict[str, Any]) -> Event:
    figures = dict(entry.get("figures") or {})
    return Event(str(entry["kind"]), int(entry["step"]), str(entry["message"]), float(entry["time"]), figures)


def _ends_with_a_line(path: Path) -> bool:
    """Whether a file that is not empty ends with a line end: the last line of a killed run may be half there."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
