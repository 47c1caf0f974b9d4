"""The page of one or several runs: the words and tables around the charts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litmoe.config.dialect import to_yaml
from litmoe.report.compare import comparison
from litmoe.report.curves import Budget
from litmoe.report.figures import Curves, Numbers, RunFigures
from litmoe.report.page import MOST_BYTES, render, write_page
from litmoe.report.run import as_json, dump, find_run, read_runs
from litmoe.report.words import ABSENT, duration, figure, overview, short, subtitle, tiles
from litmoe.version import __version__

PAGE = "report.html"

_TABLE_ROWS = 12
_LAYERS_AT_ONCE = 12
_MOST_SETTINGS = 40_000  # characters


@dataclass(frozen=True)
class Chart:
    """One chart of curves: which columns it has, and how to write their values."""

    id: str
    title: str
    columns: tuple[tuple[str, str], ...]
    """Pairs of ``curves`` or ``validation`` and a column's name."""
    write: Callable[[float | None], str]
    wide: bool = False
    lower_is_better: bool = False


CHARTS = (
    Chart("loss", "Loss", (("curves", "train_loss"), ("validation", "val_loss")), figure, True, True),
    Chart("bits", "Bits per byte", (("validation", "val_bits_per_byte"),), figure, lower_is_better=True),
    Chart(
        "learning_rate",
        "Learning rate",
        (("curves", "learning_rate"),),
        lambda v: ABSENT if v is None else f"{v:.3g}",
    ),
    Chart("grad_norm", "Gradient norm before clipping", (("curves", "grad_norm"),), figure),
    Chart("speed", "Tokens per second", (("curves", "tokens_per_second"),), lambda v: figure(v, 0)),
    Chart(
        "memory",
        "Memory in use",
        (("curves", "device_memory"), ("curves", "host_memory")),
        lambda v: ABSENT if v is None else f"{v / 1e9:.2f} GB",
    ),
    Chart(
        "balance",
        "Load of the busiest expert over the mean",
        (("curves", "load_max_over_mean"),),
        lambda v: figure(v, 2),
    ),
    Chart("entropy", "Entropy of the router", (("curves", "router_entropy"),), lambda v: figure(v, 3)),
    Chart("dead", "Dead experts", (("curves", "dead_experts"),), lambda v: figure(v, 1)),
)


def write_report(folders: Sequence[Path], out: Path | None = None, json_file: Path | None = None) -> Path:
    """Write the report of one or several runs.

    Args:
        folders: of the runs.
        out: the page's file; None: ``report.html`` in the folder of the first run.
        json_file: also write the figures here, in the schema of ``docs/guides/see-it.md``.

    Returns:
        The page's file.

    Raises:
        LitMoEError: no such run, or a file cannot be written.
    """
    out = out or find_run(folders[0]) / PAGE
    budget = Budget()
    runs = read_runs(folders, budget)
    page = report_page(runs)
    while len(page.encode()) >= MOST_BYTES and budget.points > 50:  # several large runs on one page
        budget = Budget(budget.points // 2, budget.load_points // 2, budget.load_numbers // 2)
        runs = read_runs(folders, budget)
        page = report_page(runs)
    write_page(out, page)
    if json_file is not None:
        write_page(json_file, dump(as_json(runs), indent=1) + "\n")
    return out


def report_page(runs: Sequence[RunFigures]) -> str:
    """The page of runs as HTML."""
    several = len(runs) > 1
    charts = [chart for chart in CHARTS if any(_has(run, chart) for run in runs)]
    deepest = max((len(run.load.relative) for run in runs if run.load), default=0)
    return render(
        "report.html",
        ["charts.js", "report.js"],
        dump(as_json(runs)),
        litmoe=__version__,
        title=f"Run {runs[0].name}"
        if not several
        else f"{len(runs)} runs: {', '.join(run.name for run in runs)}",
        subtitle=subtitle(runs[0]) if not several else "Their curves lie over each other.",
        written=time.strftime("%Y-%m-%d %H:%M"),
        runs=runs,
        tiles=tiles(runs[0]),
        overview=overview(runs),
        hints=[(run.name, hint) for run in runs for hint in run.hints],
        charts=[_chart(chart, runs) for chart in charts],
        binned=any(run.curves.rows_per_point > 1 for run in runs),
        has_events=any(event.kind not in ("start", "finished") for run in runs for event in run.events),
        any_load=deepest > 0,
        layer_groups=[
            (first, min(first + _LAYERS_AT_ONCE, deepest)) for first in range(0, deepest, _LAYERS_AT_ONCE)
        ],
        load_tables={run.name: _late_load(run) for run in runs if run.load},
        comparison=_comparison(runs) if several else None,
        facts={run.name: _facts(run) for run in runs},
        configurations={run.name: _configuration(run) for run in runs},
    )


def _has(run: RunFigures, chart: Chart) -> bool:
    return any(name in getattr(run, where).values for where, name in chart.columns)


def _chart(chart: Chart, runs: Sequence[RunFigures]) -> dict[str, Any]:
    """What the template says of a chart: its summary for those who cannot see it, and a table."""
    summaries, columns, rows = [], ["step", "tokens"], []
    several = len(runs) > 1
    if several:
        columns.insert(0, "run")
    columns += [name for _, name in chart.columns]
    for run in runs:
        prefix = f"{run.name}: " if several else ""
        for where, name in chart.columns:
            text = _summary(getattr(run, where), name, chart)
            if text:
                summaries.append(prefix + text)
        rows += [([run.name] if several else []) + row for row in _rows(run, chart)]
    return {
        "id": chart.id,
        "title": chart.title,
        "wide": chart.wide,
        "summary": " ".join(summaries),
        "table": {"columns": columns, "rows": rows},
    }


def _summary(curves: Curves, name: str, chart: Chart) -> str:
    """A curve in one sentence."""
    if name not in curves.values:
        return ""
    points = [
        (s, v)
        for s, v in zip(curves.step, curves.values[name].mean, strict=True)
        if v is not None and s is not None
    ]
    if not points:
        return ""
    label = name.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
    (first_step, first), (last_step, last) = points[0], points[-1]
    text = f"{label} {chart.write(first)} at step {first_step:,.0f}, {chart.write(last)} at step {last_step:,.0f}"
    if chart.lower_is_better and len(points) > 2:
        step, lowest = min(points, key=lambda point: point[1])
        text += f", lowest {chart.write(lowest)} at step {step:,.0f}"
    return f"{text[0].upper()}{text[1:]}."


def _rows(run: RunFigures, chart: Chart) -> list[list[str]]:
    """Some points of a chart's curves, evenly spread, the first and the last among them."""
    where = chart.columns[-1][0]  # validations are fewer, and their steps have a training loss too
    curves: Curves = getattr(run, where)
    if not any(name in curves.values for _, name in chart.columns):
        curves = run.curves
    count = len(curves.step)
    picked = sorted(
        {round(i * (count - 1) / max(1, _TABLE_ROWS - 1)) for i in range(min(count, _TABLE_ROWS))}
    )
    rows = []
    for at in picked:
        step = curves.step[at]
        cells = [f"{step or 0:,.0f}", f"{curves.total_tokens[at] or 0:,.0f}"]
        for place, name in chart.columns:
            cells.append(chart.write(_value(getattr(run, place), name, step)))
        rows.append(cells)
    return rows


def _value(curves: Curves, name: str, step: float | None) -> float | None:
    """The value of the point nearest to a step."""
    if name not in curves.values or step is None:
        return None
    known = [at for at, s in enumerate(curves.step) if s is not None]
    nearest = min(known, key=lambda at: abs((curves.step[at] or 0) - step), default=None)
    return None if nearest is None else curves.values[name].mean[nearest]


def _late_load(run: RunFigures) -> list[list[float | None]]:
    """Mean load of every expert over the last tenth of the points."""
    assert run.load is not None

    def late(row: Numbers) -> float | None:
        tail = [value for value in row[-max(1, len(row) // 10) :] if value is not None]
        return sum(tail) / len(tail) if tail else None

    return [[late(row) for row in rows] for rows in run.load.relative]


def _comparison(runs: Sequence[RunFigures]) -> list[dict[str, Any]]:
    found = comparison(runs)
    names = [run.name for run in runs]
    tables = []
    for key, caption in (("equal_tokens", "At equal tokens"), ("equal_time", "At equal training time")):
        at = found[key]["at"]
        if at is None:
            continue
        where = f"{caption}: {short(at)} tokens" if key == "equal_tokens" else f"{caption}: {duration(at)}"
        measures = ("train_loss", "val_loss", "val_bits_per_byte")
        rows = [
            [name, *(figure(one[measure]) for one in found[key]["runs"])]
            for name, measure in (
                ("training loss", measures[0]),
                ("validation loss", measures[1]),
                ("bits per byte", measures[2]),
            )
        ]
        tables.append({"caption": where, "columns": ["", *names], "rows": rows})
    settings = [[row["name"], *row["values"]] for row in found["settings"]]
    tables.append({"caption": "Settings that differ", "columns": ["setting", *names], "rows": settings})
    return tables


def _facts(run: RunFigures) -> list[dict[str, Any]]:
    about = run.about
    groups = [
        ("Model", about.get("model")),
        ("Data", about.get("data")),
        ("Machine", about.get("hardware")),
        ("Versions", about.get("versions")),
    ]
    shown = [
        {
            "title": title,
            "rows": [(name.replace("_", " "), _fact(name, value)) for name, value in rows.items()],
        }
        for title, rows in groups
        if isinstance(rows, dict) and rows
    ]
    parts = [part for part in about.get("parts", []) if isinstance(part, dict)]
    if parts:
        rows = [(f"part {number}", _part(part)) for number, part in enumerate(parts, 1)]
        shown.append({"title": "When", "rows": rows})
    return shown


def _fact(name: str, value: Any) -> str:
    if value is None:
        return ABSENT
    if name.endswith("memory") and isinstance(value, int):
        return f"{value / 1e9:,.1f} GB"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)[:300]


def _part(part: dict[str, Any]) -> str:
    def when(key: str) -> str:
        value = part.get(key)
        return (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(value)) if isinstance(value, int | float) else "?"
        )

    last = part.get("last_step")
    end = f"{when('ended')}, step {last:,}" if isinstance(last, int) else "no end recorded"
    return f"from {when('started')}, step {part.get('first_step', '?')}, to {end}"


def _configuration(run: RunFigures) -> str:
    text: str = to_yaml(run.settings) if run.settings else "not recorded"
    return text if len(text) <= _MOST_SETTINGS else text[:_MOST_SETTINGS] + "\n…"
