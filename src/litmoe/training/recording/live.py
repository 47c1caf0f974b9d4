"""The live view of a run in a terminal: where it stands, what it writes, which experts work.

Drawn over itself with rich, at most twice a second and only between steps: no thread, no hidden cursor, nothing
that a killed process leaves behind. Lines that are to stay go above it.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live_render import LiveRender
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from litmoe.messages import Say, readable
from litmoe.progress_bar import watched
from litmoe.training.recording.about import host_memory
from litmoe.training.recording.words import count_in_words

SECONDS_BETWEEN = 0.5

_LOSSES_KEPT = 240
_BLOCKS, _PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", ".:-=+*#@"
_NARROW = 60


def can_show(stream: IO[str] | None = None) -> bool:
    """Whether a live view makes sense: stderr is a terminal that somebody watches and that moves its cursor."""
    if not watched() or os.environ.get("CI") or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    return not Console(file=stream or sys.stderr).legacy_windows


class LiveView:
    """What is known of a run, drawn over itself."""

    def __init__(self, steps: int, stream: IO[str] | None = None) -> None:
        """
        Args:
            steps: of the whole run.
            stream: a terminal; None: stderr.
        """
        stream = stream or sys.stderr
        terminal: Any = _Forgiving(stream)
        self._console = Console(file=terminal, force_terminal=True, highlight=False)
        self._blocks = _BLOCKS if _can_write(stream, _BLOCKS + "✕…") else _PLAIN_BLOCKS
        self._fancy = self._blocks is _BLOCKS
        self._render: LiveRender | None = None
        self._size = self._console.size
        self._steps = steps
        self._row: dict[str, float] = {}
        self._losses: deque[float] = deque(maxlen=_LOSSES_KEPT)
        self._validation: dict[str, float] = {}
        self._left: float | None = None
        self._sample: tuple[int, str] | None = None
        self._saved: tuple[float, str] | None = None
        self._event = ""
        self._next = 0.0

    def step(self, row: Mapping[str, float], seconds_per_step: float) -> None:
        """Take the figures of a step."""
        self._row = dict(row)
        if "train_loss" in row:
            self._losses.append(row["train_loss"])
        for name in ("val_loss", "val_bits_per_byte"):
            if name in row:
                self._validation[name] = row[name]
        self._left = (self._steps - row["step"]) * seconds_per_step
        if time.monotonic() >= self._next:
            self.draw()

    def sample(self, step: int, text: str) -> None:
        """Take a text that the model wrote."""
        self._sample = (step, text)
        self.draw()

    def event(self, kind: str, message: str) -> None:
        """Take an event; a checkpoint that was saved has a line of its own."""
        if kind == "saved":
            self._saved = (time.monotonic(), message.removeprefix("checkpoint "))
        else:
            self._event = message
        if self._row:
            self.draw()

    def above(self, line: str, say: Say) -> None:
        """Have a line said that stays, above the view."""
        self._take_away()
        say(line)
        self.draw()

    def draw(self) -> None:
        """Draw the view where it was drawn before."""
        self._next = time.monotonic() + SECONDS_BETWEEN
        if not self._row:
            return
        with self._console:  # one write
            self._take_away()
            self._render = LiveRender(self._view(), vertical_overflow="crop")
            self._console.print(self._render, end="")

    def close(self) -> None:
        """Leave the view as it stands, and the cursor on a line of its own."""
        if self._row:
            self.draw()
            self._console.print()
        self._render, self._row = None, {}

    def _take_away(self) -> None:
        """Put the cursor where the view begins, and nothing below it.

        A terminal of another width has wrapped what was drawn, each kind in its own way: then all is cleared.
        """
        size, before = self._console.size, self._size
        self._size = size
        if self._render is None:
            return
        if size.width < before.width or size.height < before.height:
            self._console.control(Control.clear(), Control.home())
        else:
            self._console.control(self._render.position_cursor())
        self._render = None

    def _view(self) -> RenderableType:
        """As much as fits the terminal."""
        width, height = self._size.width, self._size.height
        parts: list[RenderableType] = [self._position(width), self._losses_line(width), self._machine()]
        loads = self._loads(width, most=max(0, min(12, height - 9)))
        parts += [loads] if loads is not None else []
        if self._sample is not None and height >= 12:
            parts.append(self._sample_lines(width))
        if self._saved is not None:
            ago = timedelta(seconds=round(time.monotonic() - self._saved[0]))
            parts.append(_line(f"checkpoint  {self._saved[1]} ({ago} ago)", width))
        if self._event:
            parts.append(_line(f"event       {self._event}", width))
        return Group(*parts)

    def _position(self, width: int) -> RenderableType:
        step = int(self._row["step"])
        left = str(timedelta(seconds=round(self._left or 0)))
        text = (
            f"step {step:,}/{self._steps:,}  {count_in_words(self._row['total_tokens'])} tokens  left {left}"
        )
        if width < _NARROW or not self._fancy:
            return _line(f"{text}  {step / max(1, self._steps):.0%}", width)
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(text, style="bold"), ProgressBar(total=self._steps, completed=step, width=24))
        return table

    def _losses_line(self, width: int) -> Text:
        line = Text(f"loss {self._row.get('train_loss', float('nan')):.4f}")
        validation = self._validation
        tail = f"  validation {validation['val_loss']:.4f}" if "val_loss" in validation else ""
        if "val_bits_per_byte" in validation:
            tail += f"  {validation['val_bits_per_byte']:.4f} bits per byte"
        room = min(40, width - len(line) - len(tail) - 3)
        if room >= 8:
            line.append(f"  {sparkline(list(self._losses), room, self._blocks)}", style="cyan")
        return _fit(line.append(tail), width)

    def _machine(self) -> Text:
        parts = [f"{self._row.get('tokens_per_second', 0):,.0f} tokens/s"]
        if "mfu" in self._row:
            parts.append(f"MFU {self._row['mfu']:.0%}")
        if (device := _device_memory()) is not None:
            parts.append(f"device {readable(device[0])} of {readable(device[1])}")
        parts.append(f"host {readable(host_memory())}")
        return _line("  ".join(parts), self._size.width)

    def _loads(self, width: int, most: int) -> RenderableType | None:
        """A bar per expert and a line per layer; where the layers do not fit, the most uneven ones."""
        loads: dict[int, list[float]] = {}
        for name, share in self._row.items():
            if name.startswith("load_L"):
                loads.setdefault(int(name[6:].partition("_")[0]), []).append(share)
        if not loads or most < 1:
            return None
        worst = sorted(loads, key=lambda layer: -max(loads[layer]))[:most]
        lines = []
        for layer in sorted(worst):
            shares = loads[layer]
            mean = 1 / len(shares)
            line = Text(f"experts L{layer:<3}")
            for share in shares[: max(4, width - 40)]:
                dead = share == 0
                level = min(len(self._blocks) - 1, int(share / (2 * mean) * len(self._blocks)))
                mark = ("✕" if self._fancy else "x") if dead else self._blocks[level]
                line.append(mark, style="bold red" if dead else "green" if share < 2 * mean else "yellow")
            count = sum(share == 0 for share in shares)
            line.append(f"  {max(shares) / mean:.2f} times the mean" + (f", {count} dead" if count else ""))
            lines.append(_fit(line, width))
        return Group(*lines)

    def _sample_lines(self, width: int) -> Text:
        assert self._sample is not None
        step, text = self._sample
        words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        line = Text(f"step {step:,} writes: ", style="dim").append(words, style="not dim")
        return _fit(line, 2 * width - 2, width)


def sparkline(values: Sequence[float], width: int, blocks: str = _BLOCKS) -> str:
    """Numbers as blocks, the newest last; several numbers share a block where they are many."""
    finite = [value for value in values if value == value and abs(value) != float("inf")]
    if not finite or width < 1:
        return ""
    count = min(width, len(finite))
    means = []
    for at in range(count):
        part = finite[at * len(finite) // count : (at + 1) * len(finite) // count]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    if high == low:
        return blocks[0] * count
    top = len(blocks) - 1
    return "".join(blocks[round((mean - low) / (high - low) * top)] for mean in means)


def _line(text: str, width: int) -> Text:
    return _fit(Text(text), width)


def _fit(text: Text, room: int, width: int | None = None) -> Text:
    """Cut to a width that leaves the last column free: some terminals wrap as soon as it is written."""
    text.no_wrap = width is None
    text.overflow = "fold" if width is not None else "crop"
    text.truncate(max(1, room - 1))
    return text


def _device_memory() -> tuple[int, int] | None:
    """Bytes in use and in all of the current CUDA device; None without one that is in use."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free, total


def _can_write(stream: Any, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class _Forgiving:
    """A terminal that gets what it cannot encode as question marks."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; characters that the terminal's encoding lacks become ``?``."""
        encoding = getattr(self._stream, "encoding", None) or "ascii"
        return self._stream.write(text.encode(encoding, "replace").decode(encoding))

    def __getattr__(self, name: str) -> Any:  # flush, isatty, fileno, encoding
        return getattr(self._stream, name)
