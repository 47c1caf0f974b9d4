"""A run in words and numbers for people: on its page, and in the terminal."""

import time
from collections.abc import Sequence
from typing import Any

from litmoe.report.figures import RunFigures

ABSENT = "—"


def short(count: float | None) -> str:
    """1234567 as 1.23 M; a dash where there is none."""
    if count is None:
        return ABSENT
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,.4g}"


def figure(value: float | None, digits: int = 4) -> str:
    """A number with so many decimals; a dash where there is none."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds as 1 h 05 min; a dash where there are none."""
    if seconds is None:
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def overview(runs: Sequence[RunFigures]) -> dict[str, Any]:
    """One line per run, as text; also what ``litmoe runs`` prints."""
    columns = [
        "run",
        "model",
        "steps",
        "tokens",
        "best validation loss",
        "bits per byte",
        "tokens/s",
        "state",
        "when",
    ]
    rows = [
        [
            run.name,
            str(run.about.get("model", {}).get("name") or _model_name(run)),
            _steps(run),
            short(run.last.get("total_tokens")),
            figure(run.best.get("val_loss")),
            figure(run.best.get("val_bits_per_byte")),
            figure(_speed(run), 0),
            run.state,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(run.updated)),
        ]
        for run in runs
    ]
    return {"columns": columns, "rows": rows}


def subtitle(run: RunFigures) -> str:
    """Model and device of a run, in one line."""
    model = run.about.get("model", {})
    parts = [str(model.get("name") or _model_name(run))]
    if model.get("parameters"):
        parts.append(
            f"{short(model['parameters'])} parameters, {short(model['active_parameters'])} active per token"
        )
    if run.load:
        chosen = model.get("n_expert_per_token")
        experts = len(run.load.relative[0]) * run.load.pooled
        parts.append(
            f"{len(run.load.relative)} layers of {experts} experts"
            + (f", {chosen} per token" if chosen else "")
        )
    device = run.about.get("hardware", {}).get("device")
    if device:
        parts.append(str(device))
    return " · ".join(part for part in parts if part)


def tiles(run: RunFigures) -> list[dict[str, str]]:
    """The figures that come first: ``name``, ``value`` and a word ``more``."""
    best = f"at step {int(run.best['step']):,}" if run.best else ""
    return [
        {
            "name": "State",
            "value": run.state,
            "more": time.strftime("%Y-%m-%d %H:%M", time.localtime(run.updated)),
        },
        {"name": "Steps", "value": _steps(run), "more": ""},
        {"name": "Tokens", "value": short(run.last.get("total_tokens")), "more": ""},
        {
            "name": "Training loss",
            "value": figure(run.last.get("train_loss")),
            "more": "last step, nats per token",
        },
        {"name": "Best validation loss", "value": figure(run.best.get("val_loss")), "more": best},
        {"name": "Bits per byte", "value": figure(run.best.get("val_bits_per_byte")), "more": best},
        {"name": "Training time", "value": duration(run.last.get("time")), "more": ""},
        {"name": "Speed", "value": figure(_speed(run), 0), "more": "tokens per second, mean"},
    ]


def _steps(run: RunFigures) -> str:
    done, planned = run.last.get("step"), run.about.get("steps")
    if done is None:
        return ABSENT
    return (
        f"{int(done):,} of {planned:,}" if isinstance(planned, int) and planned != done else f"{int(done):,}"
    )


def _speed(run: RunFigures) -> float | None:
    tokens, seconds = run.last.get("total_tokens"), run.last.get("time")
    return tokens / seconds if tokens and seconds else None


def _model_name(run: RunFigures) -> str:
    model = run.settings.get("model_config")
    return str(
        (model.get("name") if isinstance(model, dict) else model) or run.settings.get("model_name") or ""
    )
