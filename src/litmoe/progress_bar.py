"""Progress bars: only where somebody watches, and never in the way of the work."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.asyncio import tqdm_asyncio


class _Terminal:
    """stderr as a bar writes to it: a write that fails (a terminal that has gone) is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: the stream is closed, or cannot encode the text
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:  # isatty, fileno, encoding: tqdm fits the bar to them
        return getattr(self._stream, name)


def watched() -> bool:
    """Whether stderr is a terminal; a bar in a file or pipe is thousands of lines that nobody reads."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False


class WatchedBar(tqdm_asyncio):
    """The bar of a library that takes a class of tqdm's: silent unless stderr is a terminal."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | ({} if watched() else {"disable": True}))


def progress_bar(iterable: Iterable[Any] | None = None, *, show: bool = True, **options: Any) -> tqdm:
    """A tqdm bar on stderr, silent unless ``show`` and stderr is a terminal.

    Args:
        iterable: what to go through, as tqdm's first argument.
        show: False: no bar in any case.
        options: the rest of tqdm's: ``total``, ``initial``, ``desc``, ``unit``, ``unit_scale``.
    """
    if not (show and watched()):
        return tqdm(iterable, disable=True, **options)
    return tqdm(iterable, file=_Terminal(sys.stderr), dynamic_ncols=True, **options)
