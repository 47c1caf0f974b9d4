"""Runs side by side: the settings that differ, and the loss at equal tokens and at equal time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from litmoe.report.figures import Curves, RunFigures

_NOT_COMPARED = ("out_dir", "resume", "progress", "report")
_SMOOTHED_OVER = 0.05  # of the way to the point of comparison: a single batch says little


def comparison(runs: Sequence[RunFigures]) -> dict[str, Any]:
    """What distinguishes runs, as plain values.

    Returns:
        ``settings``: rows of ``name`` and one value per run, as text; ``equal_tokens`` and ``equal_time``: the
        position ``at`` (tokens or seconds of training) that all runs have reached, and one ``train_loss``,
        ``val_loss`` and ``val_bits_per_byte`` per run there, null where that was not measured.
    """
    return {
        "runs": [run.name for run in runs],
        "settings": differing_settings([run.settings for run in runs]),
        "equal_tokens": _losses_at(runs, "total_tokens"),
        "equal_time": _losses_at(runs, "time"),
    }


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings that are not the same in all runs, by dotted name; a missing one is an empty text."""
    flat = [dict(_flatten(one)) for one in settings]
    names = sorted({name for one in flat for name in one if name.split(".")[0] not in _NOT_COMPARED})
    rows = [{"name": name, "values": [one.get(name, "") for one in flat]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _losses_at(runs: Sequence[RunFigures], axis: str) -> dict[str, Any]:
    ends = [run.last.get(axis) for run in runs]
    if any(end is None for end in ends):
        return {"at": None, "runs": []}
    at = min(end for end in ends if end is not None)
    return {
        "at": at,
        "runs": [
            {
                "train_loss": _smoothed(run.curves, axis, "train_loss", at),
                "val_loss": _between(run.validation, axis, "val_loss", at),
                "val_bits_per_byte": _between(run.validation, axis, "val_bits_per_byte", at),
            }
            for run in runs
        ],
    }


def _points(curves: Curves, axis: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    if name not in curves.values:
        return np.empty(0), np.empty(0)
    pairs = zip(getattr(curves, axis), curves.values[name].mean, strict=True)
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return np.array([x for x, _ in known]), np.array([y for _, y in known])


def _smoothed(curves: Curves, axis: str, name: str, at: float) -> float | None:
    """The mean over the last stretch up to a position."""
    x, y = _points(curves, axis, name)
    near = (x <= at) & (x >= at * (1 - _SMOOTHED_OVER))
    if near.any():
        return float(y[near].mean())
    return float(np.interp(at, x, y)) if len(x) else None


def _between(curves: Curves, axis: str, name: str, at: float) -> float | None:
    """By a line between the measurements around a position; None before the first and well after the last."""
    x, y = _points(curves, axis, name)
    if not len(x) or at < x[0] or at > x[-1] * (1 + _SMOOTHED_OVER):
        return None
    return float(np.interp(at, x, y))


def _flatten(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found += _flatten(value, f"{name}.")
        else:
            found.append((name, str(value)[:200]))
    return found
