"""Messages for people: how they are put together, and what takes them."""

import difflib
from collections.abc import Callable, Iterable

MOST_NAMES = 12
"""Longer lists of names are left to ``--help all``."""

Say = Callable[[str], None]
"""Takes one line for a person. Functions are silent by default; only the commands print."""


def silent(_: str) -> None:
    """The :data:`Say` that says nothing."""


def one_line(error: object) -> str:
    """A message of any length and shape as one line."""
    return " ".join(str(error).split())


def nearest(
    word: str, known: Iterable[str], prefix: str = "", otherwise: str = "; --help all lists them"
) -> str:
    """The end of a message that refuses a name: ``; did you mean X?``, or what there is to choose from.

    Args:
        word: the name.
        known: those that would have been right.
        prefix: before each of them.
        otherwise: the end where none is near, and they are too many to list.
    """
    word, known = str(word), list(known)  # YAML's keys may be numbers
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not close and "." not in word:  # the end of a dotted name, written without its section
        close = [name for name in known if difflib.get_close_matches(word, [name.split(".")[-1]], cutoff=0.7)]
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    few = len(known) <= MOST_NAMES
    return f"; choose from {', '.join(prefix + name for name in known)}" if few else otherwise


def readable(n_bytes: int) -> str:
    """A number of bytes for people, in powers of ten, as disks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB" if n_bytes >= 1e3 else f"{n_bytes:.0f} bytes"
