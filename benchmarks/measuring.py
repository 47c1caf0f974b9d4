"""What all benchmarks share: variants in processes of their own, medians of interleaved runs, and a table.

A benchmark prints its rows as a table; ``performance.py`` collects all tables in ``docs/PERFORMANCE.md``.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
_RESULT = "result: "

clock = time.process_time
"""Times variants with one thread, in seconds of CPU time: equal to wall-clock time on an idle machine, and nearly
unchanged on a busy one."""

SMALL_MODEL = {
    "n_embd": 128,
    "n_head": 4,
    "n_query_groups": 2,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 8,
    "n_expert_per_token": 2,
    "intermediate_size": 256,
    "moe_intermediate_size": 256,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
}
"""A model that trains in seconds; each benchmark adds length, vocabulary and number of layers."""


@dataclass(frozen=True)
class Row:
    """One figure of a benchmark, litmoe's and the peer's."""

    figure: str
    ours: float
    peer: float | None = None
    """None: no peer, only a limit to keep."""
    peer_name: str = "LitGPT"
    unit: str = ""
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer: above 1, litmoe is faster or smaller."""
        if not self.peer or not self.ours:
            return None
        return self.ours / self.peer if self.more_is_better else self.peer / self.ours


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for bf16; without them its products are ten times slower than in fp32."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def report(result: Mapping[str, Any]) -> None:
    """Print what a variant's process measured, for :func:`variant` in the parent process."""
    print(_RESULT + json.dumps(result), flush=True)


def variant(script: str, *args: str, threads: int | None = None, timeout: float = 900) -> dict[str, Any]:
    """Run ``python script args...`` in a new process and return what it reports.

    Memory pools, primitive caches and compiled code of one variant would change the next in the same process.

    Raises:
        RuntimeError: the process failed; with the end of its stderr.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [sys.executable, script, *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        timeout=timeout,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if done.returncode or not results:
        raise RuntimeError(f"{Path(script).name} {' '.join(args)}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(results[-1].removeprefix(_RESULT))
    return found


def interleaved(
    variants: Mapping[str, Callable[[], Mapping[str, Any]]], repeats: int
) -> dict[str, dict[str, Any]]:
    """Run all variants in turn, ``repeats`` times; the median of each number, and the last of anything else.

    In turn, so that a machine that slows down does so for all variants.
    """
    seen: dict[str, list[Mapping[str, Any]]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, measure in variants.items():
            seen[name].append(measure())
    return {name: _median(results) for name, results in seen.items()}


def _median(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged = dict(results[-1])
    for key, value in merged.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            merged[key] = statistics.median(result[key] for result in results)
    return merged


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table that is readable on a terminal too."""
    cells = [["figure", "litmoe", "peer", "", "times better"]]
    for row in rows:
        peer = "" if row.peer is None else number(row.peer, row.unit)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        cells.append([row.figure, number(row.ours, row.unit), peer, row.peer_name if peer else "", ratio])
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def number(value: float, unit: str = "") -> str:
    """A number with three significant digits and its unit."""
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip()
