"""``metrics.csv`` as curves: read once, whatever its length, into a bounded number of points."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from litmoe.report.figures import Curve, Curves, ExpertLoad, rounded
from litmoe.report.series import Series
from litmoe.training.recording.metrics_file import (
    BASE_COLUMNS,
    MOE_COLUMNS,
    Columns,
    read_columns,
)

POSITIONS = ("step", "total_tokens", "time")
VALIDATION = ("val_loss", "val_bits_per_byte")
SUMMARY = (*BASE_COLUMNS, *MOE_COLUMNS)
PER_LAYER = ("load_max_over_mean", "router_entropy", "dead_experts")

_WITH_RANGE = ("train_loss", "grad_norm", "tokens_per_second")  # of the others the mean says enough
_LOAD = re.compile(r"load_L(\d+)_E(\d+)")
_OF_A_LAYER = re.compile(r"_L\d+(_E\d+)?$")


@dataclass(frozen=True)
class Budget:
    """How many numbers a run may have in a report. All are bounds, whatever the run's length and width."""

    points: int = 600
    """Points per curve."""
    load_points: int = 150
    """Points over time of the experts' load."""
    load_numbers: int = 24_000
    """Numbers of the experts' load in all; 0: none, and the file's columns of them are not read."""

    def shared_by(self, n_runs: int) -> "Budget":
        """The budget of each of several runs on one page."""
        share = max(1.0, n_runs / 2)
        return Budget(
            _even(self.points / share), _even(self.load_points / share), int(self.load_numbers / share)
        )


@dataclass
class Metrics:
    """What a ``metrics.csv`` comes to."""

    curves: Curves
    validation: Curves
    load: ExpertLoad | None
    rows: int = 0
    last: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    not_finite: int = 0


def read_metrics(path: Path, budget: Budget = Budget()) -> Metrics:
    """Read the metrics of a run.

    Raises:
        LitMoEError: the file cannot be read, or is no ``metrics.csv``.
    """
    reading: _Reading | None = None
    for block in read_columns(path, None if budget.load_numbers else SUMMARY):
        reading = reading or _Reading(list(block), budget)
        reading.add(block)
    return (reading or _Reading(list(POSITIONS), budget)).result()


class _Reading:
    """The state of one pass. L: MoE layers, E: experts, P: points."""

    def __init__(self, names: list[str], budget: Budget) -> None:
        plain = [name for name in names if not _OF_A_LAYER.search(name)]
        places = [(int(m[1]), int(m[2])) for name in names if (m := _LOAD.fullmatch(name))]
        self.n_layers = 1 + max((layer for layer, _ in places), default=-1)
        self.n_experts = 1 + max((expert for _, expert in places), default=-1)
        self.plain = plain
        self.curves = Series(
            [*POSITIONS, *(n for n in plain if n not in POSITIONS + VALIDATION)], budget.points
        )
        self.validation = Series([*POSITIONS, *VALIDATION], budget.points)
        per_layer = [f"{name}_L{layer}" for name in PER_LAYER for layer in range(self.n_layers)]
        loads = [f"load_L{layer}_E{e}" for layer in range(self.n_layers) for e in range(self.n_experts)]
        # A wide model has fewer points over time, and where that is not enough, several experts share a row.
        self.shown_experts, points = self.n_experts, budget.load_points
        if self.n_layers:
            fewest = min(20, budget.load_points)
            most_experts = max(4, budget.load_numbers // (self.n_layers * fewest))
            self.shown_experts = min(self.n_experts, most_experts)
            points = min(
                points, budget.load_numbers // (self.n_layers * (self.shown_experts + len(PER_LAYER)))
            )
        self.load = Series([*POSITIONS, *per_layer, *loads], max(_even(points), 8)) if loads else None
        self.result_last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.not_finite = 0

    def add(self, block: Columns) -> None:
        self.curves.add(block)
        if self.load is not None:
            self.load.add(block)
        for name in self.plain:
            measured = block[name][np.isfinite(block[name])]
            if len(measured):
                self.result_last[name] = float(measured[-1])
        if "train_loss" in block:  # a validation before the first step has none
            self.not_finite += int((~np.isfinite(block["train_loss"]) & (block["step"] > 0)).sum())
        validated = np.isfinite(block.get("val_loss", np.full(len(block["step"]), np.nan)))
        if validated.any():
            rows = {
                name: values[validated] for name, values in block.items() if name in POSITIONS + VALIDATION
            }
            self.validation.add(rows)
            lowest = int(rows["val_loss"].argmin())
            if rows["val_loss"][lowest] < self.best.get("val_loss", np.inf):
                self.best = {n: float(v[lowest]) for n, v in rows.items() if np.isfinite(v[lowest])}

    def result(self) -> Metrics:
        return Metrics(
            curves=_curves(self.curves),
            validation=_curves(self.validation),
            load=self._load(),
            rows=self.curves.rows,
            last=self.result_last,
            best=self.best,
            not_finite=self.not_finite,
        )

    def _load(self) -> ExpertLoad | None:
        if self.load is None:
            return None
        relative, pooled = [], -(-self.n_experts // self.shown_experts)
        for layer in range(self.n_layers):
            share_EP = np.stack([self.load.mean(f"load_L{layer}_E{e}") for e in range(self.n_experts)])
            if pooled > 1:  # by load: what a page has to show of 256 experts is how uneven they are
                share_EP = _mean_of_neighbours(-np.sort(-share_EP, axis=0), pooled)
            relative.append([rounded(row_P * self.n_experts, 4) for row_P in share_EP])
        return ExpertLoad(
            **{name: rounded(self.load.mean(name)) for name in POSITIONS},
            relative=relative,
            layers={
                name: [rounded(self.load.mean(f"{name}_L{layer}"), 4) for layer in range(self.n_layers)]
                for name in PER_LAYER
            },
            pooled=pooled,
        )


def _curves(series: Series) -> Curves:
    values = {}
    for name in series.names:
        mean = series.mean(name)
        if name in POSITIONS or not np.isfinite(mean).any():
            continue
        curve = values[name] = Curve(rounded(mean))
        if series.width > 1 and name in _WITH_RANGE:
            curve.low, curve.high = (rounded(bound) for bound in series.range(name))
    return Curves(series.width, **{name: rounded(series.mean(name)) for name in POSITIONS}, values=values)


def _mean_of_neighbours(values_EP: np.ndarray, count: int) -> np.ndarray:
    starts = np.arange(0, len(values_EP), count)
    sizes = np.diff(np.append(starts, len(values_EP)))
    result: np.ndarray = np.add.reduceat(values_EP, starts) / sizes[:, None]
    return result


def _even(number: float) -> int:
    return max(2, int(number) // 2 * 2)
