"""The figures of a run, as a report shows them and as its JSON holds them; null: not measured."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCHEMA = "litmoe-report/1"
"""Names this format in the JSON; a change that breaks a reader raises the number."""

Numbers = list[float | None]


@dataclass
class Curve:
    """One column of ``metrics.csv`` over the points of a :class:`Curves`."""

    mean: Numbers
    low: Numbers | None = None
    """The least value within each point's rows; None where a point is a single row."""
    high: Numbers | None = None


@dataclass
class Curves:
    """Columns of ``metrics.csv``, reduced to a few hundred points of equally many rows."""

    rows_per_point: int
    """1: the points are the rows of the file, unchanged."""
    step: Numbers
    total_tokens: Numbers
    time: Numbers
    """Seconds of training, validation and saving not counted."""
    values: dict[str, Curve] = field(default_factory=dict)
    """By the names of ``metrics.csv``."""


@dataclass
class ExpertLoad:
    """How the tokens spread over the experts, over time. L: MoE layers, E: experts, P: points."""

    step: Numbers
    total_tokens: Numbers
    time: Numbers
    relative: list[list[Numbers]]
    """Load of each expert as a multiple of an even share, [L][E][P]: 1 is even, 0 is dead."""
    layers: dict[str, list[Numbers]]
    """``load_max_over_mean``, ``router_entropy`` (nats) and ``dead_experts`` per layer, [L][P]."""
    pooled: int = 1
    """How many experts of similar load share a row of ``relative``: more than 1 only where a model has so many
    that they would not fit on a page."""


@dataclass
class SampleText:
    """What the model wrote at a step."""

    step: int
    total_tokens: int | None
    text: str
    """With the prompt that it begins with."""
    cut: bool = False
    """Whether the text went on."""


@dataclass
class Event:
    """Something unusual in the run."""

    step: int
    kind: str
    message: str
    total_tokens: float | None = None
    time: float | None = None


@dataclass
class Hint:
    """Something that looks wrong, or right, with the figure that says so and what to try."""

    severity: str
    """``problem``, ``warning`` or ``note``."""
    title: str
    figure: str
    advice: str
    chart: str
    """What shows it: ``loss``, ``grad_norm``, ``balance``, ``load``, ``speed``, ``memory`` or ``events``."""


@dataclass
class RunFigures:
    """All that a report shows of one run."""

    name: str
    folder: str
    state: str
    """``running``, ``finished``, ``interrupted``, ``failed``, or ``stopped`` where the run did not say why."""
    updated: float
    """When its metrics were last written, seconds since 1970."""
    rows: int
    """Rows of ``metrics.csv``."""
    last: dict[str, float]
    """The last value of every column that is no load."""
    best: dict[str, float]
    """The lowest validation loss: ``step``, ``total_tokens``, ``val_loss``, ``val_bits_per_byte``."""
    not_finite: int
    """Rows whose training loss is not a finite number."""
    curves: Curves
    validation: Curves
    """Only the rows with a validation: ``val_loss`` and ``val_bits_per_byte``."""
    load: ExpertLoad | None
    """None for a dense model."""
    samples: list[SampleText]
    samples_in_all: int
    events: list[Event]
    events_by_kind: dict[str, int]
    about: dict[str, Any]
    """``run.json``: model, hardware, versions, data, settings; empty where a run of an older version has none."""
    settings: dict[str, Any]
    hints: list[Hint] = field(default_factory=list)


def rounded(values: Iterable[float], digits: int = 6) -> Numbers:
    """Numbers with so many significant digits; None for those that are not finite."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]
