"""Draw a run from its metrics: the losses, and the load of every expert of every layer, over the tokens seen.

    python docs/pictures/draw_run.py [RUN]

RUN is a run's folder; its ``metrics.csv`` is copied to ``run.csv`` beside this file. Without RUN, ``run.csv``
is drawn again. Writes ``run.svg`` beside this file; ``tests/test_docs.py`` fails when that is out of date.
Needs Python alone.
"""

import csv
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
TABLE, PICTURE = HERE / "run.csv", HERE / "run.svg"

WIDTH, HEIGHT = 960, 408
LEFT, TOP, BOTTOM = 58, 52, 356
PLOT_RIGHT, MAPS_LEFT, MAPS_RIGHT = 452, 556, 936
LEVELS = 13
MOST = 3.0
"""Load at which the colour is darkest, in multiples of an even share."""

LIGHT = ["#f2f5f9", "#7fb0d8", "#0a2f57"]
"""Colours of no load, of an even share, and of ``MOST`` times that."""
DARK = ["#161c25", "#3d77ab", "#d9ecff"]

STYLE = """\
  .page { fill: #ffffff; } .axis { stroke: #c3ccd6; stroke-width: 1; }
  text { fill: #4a5a6c; font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  .title { fill: #16202c; font-weight: 600; font-size: 14px; }
  .train { stroke: #8fa3b8; stroke-width: 1.3; fill: none; } .trainkey { fill: #6c8095; }
  .val { stroke: #c2410c; stroke-width: 2.2; fill: none; } .dot { fill: #c2410c; } .valkey { fill: #c2410c; }
"""
DARK_STYLE = """\
    .page { fill: #0d1117; } .axis { stroke: #2f3a47; } text { fill: #a9b7c6; } .title { fill: #e6edf3; }
    .train { stroke: #6f8296; } .trainkey { fill: #8fa3b8; }
    .val { stroke: #fb923c; } .dot { fill: #fb923c; } .valkey { fill: #fb923c; }
"""


def drawing(rows: list[dict[str, str]]) -> str:
    """The picture of the rows of a ``metrics.csv`` as the text of an SVG file."""
    tokens = [int(row["total_tokens"]) for row in rows]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'aria-label="Left: training and validation loss fall over the tokens seen. Right: the share of tokens '
            'that each expert of each layer takes, over the same tokens.">',
            f"<style>\n{STYLE}{_colours(LIGHT)}  @media (prefers-color-scheme: dark) {{\n",
            f"{DARK_STYLE}{_colours(DARK)}  }}\n</style>",
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
            *_losses(rows, tokens),
            *_loads(rows, tokens),
            "</svg>\n",
        ]
    )


def _losses(rows: list[dict[str, str]], tokens: list[int]) -> list[str]:
    train = [float(row["train_loss"]) for row in rows]
    val = [(n, float(row["val_loss"])) for n, row in zip(tokens, rows, strict=True) if row["val_loss"]]
    highest = math.ceil(max(train))

    def x(n: int) -> float:
        return LEFT + (PLOT_RIGHT - LEFT) * n / tokens[-1]

    def y(loss: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * loss / highest

    lines = [_text(LEFT, 30, "Loss, nats per token", "title")]
    for loss in range(highest + 1):
        lines.append(f'<path class="axis" d="M{LEFT},{y(loss):.1f} H{PLOT_RIGHT}"/>')
        lines.append(_text(LEFT - 10, y(loss) + 4, str(loss), anchor="end"))
    lines += _token_axis(x, tokens[-1])
    points = " ".join(f"{x(n):.1f},{y(loss):.1f}" for n, loss in zip(tokens, train, strict=True))
    lines.append(f'<polyline class="train" points="{points}"/>')
    lines.append(
        f'<polyline class="val" points="{" ".join(f"{x(n):.1f},{y(loss):.1f}" for n, loss in val)}"/>'
    )
    lines += [f'<circle class="dot" cx="{x(n):.1f}" cy="{y(loss):.1f}" r="3.2"/>' for n, loss in val]
    last = val[-1]
    lines.append(_text(x(last[0]), y(last[1]) + 24, f"validation {last[1]:.2f}", "valkey", "end"))
    at = len(rows) // 5
    lines.append(_text(x(tokens[at]) + 14, y(train[at]) - 30, "training", "trainkey"))
    return lines


def _loads(rows: list[dict[str, str]], tokens: list[int]) -> list[str]:
    names = [match for name in rows[0] if (match := re.fullmatch(r"load_L(\d+)_E(\d+)", name))]
    n_layers = 1 + max(int(match[1]) for match in names)
    n_experts = 1 + max(int(match[2]) for match in names)
    gap = 14
    height = (BOTTOM - TOP - gap * (n_layers - 1)) / n_layers
    cell = height / n_experts

    def x(n: int) -> float:
        return MAPS_LEFT + (MAPS_RIGHT - MAPS_LEFT) * n / tokens[-1]

    paths: list[list[str]] = [[] for _ in range(LEVELS)]
    lines = [_text(MAPS_LEFT, 30, f"Share of tokens per expert ({n_experts} in each layer)", "title")]
    for layer in range(n_layers):
        top = TOP + layer * (height + gap)
        lines.append(_text(MAPS_LEFT - 10, top + height / 2 + 4, f"layer {layer}", anchor="end"))
        for expert in range(n_experts):
            y, before = top + expert * cell, 0
            for n, row in zip(tokens, rows, strict=True):
                even = float(row[f"load_L{layer}_E{expert}"]) * n_experts
                level = min(LEVELS - 1, round(even / MOST * (LEVELS - 1)))
                paths[level].append(f"M{x(before):.1f},{y:.1f}H{x(n):.1f}V{y + cell:.1f}H{x(before):.1f}z")
                before = n
    lines += [f'<path class="l{level}" d="{"".join(path)}"/>' for level, path in enumerate(paths) if path]
    lines += _token_axis(x, tokens[-1])
    for level in range(LEVELS):
        lines.append(
            f'<rect class="l{level}" x="{MAPS_RIGHT - 132 + level * 6}" y="{HEIGHT - 20}" width="6" height="9"/>'
        )
    lines.append(_text(MAPS_RIGHT - 140, HEIGHT - 11, "none", anchor="end"))
    lines.append(_text(MAPS_RIGHT, HEIGHT - 11, f"{MOST:.0f} x even", anchor="end"))
    return lines


def _token_axis(x: Callable[[int], float], last: int) -> list[str]:
    lines = [_text(x(0), HEIGHT - 11, "tokens seen")]
    step = 10 ** math.floor(math.log10(last))
    for n in range(0, last + 1, step):
        if n or step == last:
            lines.append(_text(x(n), BOTTOM + 18, f"{n // 1000:,} k", anchor="middle"))
    return lines


def _colours(stops: list[str]) -> str:
    """A style class for each level, with the even share at ``1 / MOST`` of the way."""

    def mixed(one: str, other: str, share: float) -> str:
        pairs = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
        return "#" + bytes(round(a + (b - a) * share) for a, b in pairs).hex()

    lines = []
    for level in range(LEVELS):
        even = level / (LEVELS - 1) * MOST
        low, middle, high = stops
        colour = mixed(low, middle, even) if even <= 1 else mixed(middle, high, (even - 1) / (MOST - 1))
        lines.append(f".l{level} {{ fill: {colour}; }}")
    return "  " + " ".join(lines) + "\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    cls = f' class="{kind}"' if kind else ""
    return f'<text{cls} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        shutil.copyfile(Path(sys.argv[1]) / "metrics.csv", TABLE)
    PICTURE.write_text(drawing(read(TABLE)), encoding="utf-8", newline="\n")
    print(f"wrote {PICTURE}")
