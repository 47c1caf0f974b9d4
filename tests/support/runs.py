"""Folders of runs with chosen figures, for what reads and shows them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from litmoe.training.recording.metrics_file import columns

Row = dict[str, float]


def run_folder(
    folder: Path,
    rows: int = 120,
    layers: int = 2,
    experts: int = 4,
    every: int = 10,
    change: Callable[[int, Row], None] = lambda at, row: None,
    about: dict[str, Any] | None = None,
    events: tuple[dict[str, Any], ...] = (),
    samples: tuple[dict[str, Any], ...] = (),
) -> list[Row]:
    """Write a run that learns, with an even load; returns the rows of its metrics.

    Args:
        folder: the run's.
        rows: of ``metrics.csv``.
        layers: with experts.
        experts: of each.
        every: steps between rows.
        change: gets each row's number and figures, to change them.
        about: what ``run.json`` says besides a state of ``finished``.
        events: lines of ``events.jsonl``.
        samples: lines of ``samples.jsonl``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(5)
    written: list[Row] = []
    for at in range(1, rows + 1):
        step = at * every
        row: Row = {
            "step": step,
            "train_loss": 1 + 5 * 0.93**at + 0.01 * draw.random(),
            "learning_rate": 0.001,
            "epoch": step / 5000,
            "time": step * 0.25,
            "iter_tokens": 1024,
            "total_tokens": step * 1024,
            "tokens_per_second": 4096 + draw.random(),
            "grad_norm": 0.5 + 0.1 * draw.random(),
            "host_memory": 5e8,
            "skipped_steps": 0,
            "rollbacks": 0,
        }
        if at % 6 == 0 or at == rows:
            row |= {"val_loss": 1.1 + 5 * 0.93**at, "val_bits_per_byte": 0.4 + 2 * 0.93**at}
        share = draw.dirichlet([50.0] * experts, layers) if layers else np.zeros((0, 0))
        for layer in range(layers):
            row |= {f"load_L{layer}_E{e}": round(float(share[layer, e]), 6) for e in range(experts)}
            row[f"load_max_over_mean_L{layer}"] = float(share[layer].max() * experts)
            row[f"router_entropy_L{layer}"] = 0.9
            row[f"dead_experts_L{layer}"] = 0
        if layers:
            row |= {
                "load_max_over_mean": float(share.max() * experts),
                "router_entropy": 0.9,
                "dead_experts": 0,
            }
        change(at, row)
        written.append(row)
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(layers, experts))
        writer.writeheader()
        writer.writerows(written)
    facts = {
        "state": "finished",
        "steps": rows * every,
        "model": {"name": "MoE-test", "n_expert_per_token": 2},
    }
    (folder / "run.json").write_text(json.dumps({**facts, **(about or {})}), encoding="utf-8")
    for name, records in (("events.jsonl", events), ("samples.jsonl", samples)):
        if records:
            (folder / name).write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return written


def event(step: int, kind: str, message: str) -> dict[str, Any]:
    """A line of ``events.jsonl``."""
    return {"kind": kind, "step": step, "time": 1.7e9 + step, "message": message, "figures": {}}


def sample(step: int, text: str) -> dict[str, Any]:
    """A line of ``samples.jsonl``."""
    return {"step": step, "total_tokens": step * 1024, "text": text}
