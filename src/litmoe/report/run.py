"""A run's folder as figures: what `litmoe report`, `litmoe runs` and their pages show."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from litmoe.errors import LitMoEError
from litmoe.report.curves import Budget, read_metrics
from litmoe.report.figures import SCHEMA, Curves, Event, Numbers, RunFigures
from litmoe.report.folder import read_about, read_events, read_samples, read_settings, state_of
from litmoe.report.hints import hints_for
from litmoe.training.recording.metrics_file import METRICS_FILE
from litmoe.version import __version__

MOST_RUNS = 8
"""Runs on one page: as many as there are colours that everybody can tell apart."""


def find_run(folder: Path) -> Path:
    """The folder of a run, given itself or a checkpoint in it.

    Raises:
        LitMoEError: there is no such run.
    """
    for candidate in (folder, folder.parent):
        if (candidate / METRICS_FILE).is_file():
            return candidate
    if not folder.is_dir():
        raise LitMoEError(f"{folder}: no such folder; litmoe runs lists the runs below a folder")
    raise LitMoEError(f"{folder}: not the folder of a run, it has no {METRICS_FILE}; litmoe runs lists them")


def read_run(folder: Path, budget: Budget | None = None, name: str | None = None) -> RunFigures:
    """Read all figures of a run, in bounded memory and into a bounded number of figures.

    Args:
        folder: the run's, or a checkpoint's in it.
        budget: how many numbers at most.
        name: what to call the run; None: the folder's name.

    Raises:
        LitMoEError: there is no such run, or its metrics cannot be read.
    """
    folder = find_run(folder)
    metrics_file = folder / METRICS_FILE
    metrics = read_metrics(metrics_file, budget or Budget())
    about = read_about(folder)
    settings = read_settings(folder, about)
    about.pop("settings", None)
    last_step = int(metrics.last["step"]) if "step" in metrics.last else None
    samples, events = read_samples(folder, last_step), read_events(folder)
    for event in events.shown:
        event.total_tokens = _at(metrics.curves, event, metrics.curves.total_tokens)
        event.time = _at(metrics.curves, event, metrics.curves.time)
    run = RunFigures(
        name=name or folder.resolve().name,
        folder=folder.as_posix(),
        state=state_of(folder, about),
        updated=metrics_file.stat().st_mtime,
        rows=metrics.rows,
        last=metrics.last,
        best=metrics.best,
        not_finite=metrics.not_finite,
        curves=metrics.curves,
        validation=metrics.validation,
        load=metrics.load,
        samples=samples.shown,
        samples_in_all=samples.in_all,
        events=events.shown,
        events_by_kind=events.by_kind,
        about=about,
        settings=settings,
    )
    run.hints = hints_for(run)
    return run


def read_runs(folders: Sequence[Path], budget: Budget | None = None) -> list[RunFigures]:
    """Several runs for one page, each with a name of its own and its share of the budget.

    Raises:
        LitMoEError: as :func:`read_run`; none, or too many of them; or one twice.
    """
    folders = [find_run(folder) for folder in folders]
    if not 0 < len(folders) <= MOST_RUNS:
        raise LitMoEError(f"a report shows from 1 to {MOST_RUNS} runs, got {len(folders)}")
    resolved = [folder.resolve() for folder in folders]
    for at, folder in enumerate(resolved):
        if folder in resolved[:at]:
            raise LitMoEError(f"{folders[at]}: named twice; name each run once")
    share = (budget or Budget()).shared_by(len(folders))
    return [read_run(f, share, name) for f, name in zip(folders, _names(resolved), strict=True)]


def as_json(runs: Sequence[RunFigures]) -> dict[str, Any]:
    """The figures of runs as plain values, in the schema that ``docs/guides/see-it.md`` describes."""
    from litmoe.report.compare import comparison

    return {
        "schema": SCHEMA,
        "litmoe": __version__,
        "written": round(time.time(), 3),
        "runs": [finite(asdict(run)) for run in runs],
        "comparison": comparison(runs) if len(runs) > 1 else None,
    }


def dump(figures: dict[str, Any], indent: int | None = None) -> str:
    """JSON text of figures; strict, so that every program reads it."""
    separators = (",", ":") if indent is None else None
    return json.dumps(figures, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    for depth in range(1, 6):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [folder.as_posix() for folder in folders]


def _at(curves: Curves, event: Event, positions: Numbers) -> float | None:
    """Where on an axis an event lies, between the points of the curves."""
    known = [(s, p) for s, p in zip(curves.step, positions, strict=True) if s is not None and p is not None]
    if not known:
        return None
    steps, values = zip(*known, strict=True)
    return round(float(np.interp(event.step, steps, values)), 3)


def finite(value: Any) -> Any:
    """A plain value with None for numbers that JSON does not have, and text for what it does not know."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
