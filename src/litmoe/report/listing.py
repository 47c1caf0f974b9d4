"""The runs below a folder, and two runs side by side, as text for a terminal."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litmoe.errors import LitMoEError
from litmoe.messages import Say, silent
from litmoe.report.compare import comparison
from litmoe.report.curves import Budget
from litmoe.report.figures import RunFigures
from litmoe.report.run import read_run, read_runs
from litmoe.report.words import duration, figure, overview, short
from litmoe.training.recording.metrics_file import METRICS_FILE

_SUMMARY = Budget(points=16, load_numbers=0)
_WIDEST = 44  # characters of a cell


def find_runs(folder: Path) -> list[Path]:
    """The folders of the runs below a folder, itself included, in the order of their names; hidden ones are not.

    Raises:
        LitMoEError: there is no such folder.
    """
    if not folder.is_dir():
        raise LitMoEError(f"{folder}: no such folder; name the one that your runs are in")
    found = []
    for place, folders, files in os.walk(folder):
        if METRICS_FILE in files:
            found.append(Path(place))
            folders.clear()  # its checkpoints
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return found


def list_runs(folder: Path, say: Say = silent) -> list[RunFigures]:
    """What the runs below a folder have come to, the newest last; without curves in detail.

    Args:
        folder: where to look.
        say: is told of runs that cannot be read.

    Raises:
        LitMoEError: there is no such folder, or no run in it.
    """
    runs = []
    for found in find_runs(folder):
        name = found.relative_to(folder).as_posix() if found != folder else found.resolve().name
        try:
            runs.append(read_run(found, _SUMMARY, name))
        except LitMoEError as error:
            say(f"left out: {error}")
    if not runs:
        raise LitMoEError(f"{folder}: no runs in it (folders with a {METRICS_FILE}); litmoe train makes one")
    return sorted(runs, key=lambda run: run.updated)


def listing_text(runs: Sequence[RunFigures]) -> str:
    """A table of runs, one line each."""
    found = overview(runs)
    return table(found["columns"], found["rows"])


def comparison_text(folders: Sequence[Path]) -> str:
    """Runs side by side: what they came to, which settings differ, and the loss at equal tokens and equal time.

    Raises:
        LitMoEError: no such run.
    """
    runs = read_runs(folders)
    found = comparison(runs)
    names = [run.name for run in runs]
    parts = [listing_text(runs)]
    for key, title, write in (
        ("equal_tokens", "at equal tokens", short),
        ("equal_time", "at equal training time", duration),
    ):
        if found[key]["at"] is None:
            continue
        rows = [
            [measure.replace("_", " "), *(figure(one[measure]) for one in found[key]["runs"])]
            for measure in ("train_loss", "val_loss", "val_bits_per_byte")
        ]
        parts.append(table([f"{title}: {write(found[key]['at'])}", *names], rows))
    settings: list[dict[str, Any]] = found["settings"]
    if settings:
        parts.append(
            table(["settings that differ", *names], [[row["name"], *row["values"]] for row in settings])
        )
    else:
        parts.append("no settings differ, as far as they are recorded")
    return "\n\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned for a terminal: the first to the left, numbers to the right."""
    cells = [[_cell(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _cell(text: str) -> str:
    """Text on one line without control characters, which a name from outside may have."""
    line = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."
