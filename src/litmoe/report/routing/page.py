"""The page of the routing explorer, and its figures as JSON."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from litmoe.report.page import render, write_page
from litmoe.report.routing.figures import SCHEMA, RoutingFigures
from litmoe.report.run import dump, finite
from litmoe.version import __version__

PAGE = "routing.html"

_CHOICES = ("first choice", "second choice", "third choice", "fourth choice")


def write_routing(figures: RoutingFigures, out: Path, json_file: Path | None = None) -> None:
    """Write the page of some figures, and the figures themselves where ``json_file`` says.

    Raises:
        LitMoEError: a file cannot be written.
    """
    write_page(out, routing_page(figures))
    if json_file is not None:
        write_page(json_file, dump(as_json(figures), indent=1) + "\n")


def as_json(figures: RoutingFigures) -> dict[str, Any]:
    """The figures as plain values, in the schema that ``docs/guides/see-it.md`` describes."""
    head = {"schema": SCHEMA, "litmoe": __version__, "written": round(time.time(), 3)}
    return head | {name: finite(value) for name, value in asdict(figures).items()}


def routing_page(figures: RoutingFigures) -> str:
    """The page as HTML."""
    count = figures.experts_per_token
    return render(
        "routing.html",
        ["charts.js", "routing.js"],
        dump(as_json(figures)),
        styles=["page.css", "routing.css"],
        litmoe=__version__,
        title=f"Routing of {figures.name}",
        subtitle=_subtitle(figures),
        written=time.strftime("%Y-%m-%d %H:%M"),
        figures_of=figures,
        mood="problem" if figures.collapsed_layers else "" if figures.structure_found else "none",
        choices=[_CHOICES[at] if at < len(_CHOICES) else f"choice {at + 1}" for at in range(count)],
        even=f"{1 / figures.n_experts:.1%}",
        shuffles=max(
            (one.shuffles for layer in figures.layers for one in layer.structure.values()), default=0
        ),
    )


def _subtitle(figures: RoutingFigures) -> str:
    text = figures.text
    parts = [
        f"{figures.layers_in_all} layers of {figures.n_experts} experts, {figures.experts_per_token} per token",
        f"step {figures.step:,}" if figures.step else "",
        f"{text.tokens:,} tokens of {text.documents:,} documents from {text.source}",
        f"loss {text.loss:.4f} nats per token",
    ]
    if len(figures.layers) < figures.layers_in_all:
        parts.append(f"{len(figures.layers)} of the layers are shown")
    return " · ".join(part for part in parts if part)
