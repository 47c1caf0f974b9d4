"""Draw the rooms of the package, floor above floor, from the import statements of its files.

    python docs/pictures/draw_rooms.py

Writes ``rooms.svg`` beside this file; ``tests/test_docs.py`` fails when that is out of date. A room stands one
floor above the highest of those that it imports from. Arrows that follow from others are not drawn.
"""

import sys
from html import escape
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support import house

PICTURE = Path(__file__).with_name("rooms.svg")

GROUND = tuple(room for room in house.ROOMS if (house.SOURCE / house.PACKAGE / f"{room}.py").is_file())
"""Single files on which everything stands: one box at the bottom."""

DOES = {
    "config": "settings, checked, without torch",
    "stories": "the built-in corpus",
    "distributed": "ranks and their agreements",
    "data": "text to windows of tokens",
    "model": "the model, its experts, its loss",
    "optim": "AdamW, 8-bit, 4-bit, Muon",
    "checkpoint": "folders whole or not at all",
    "wandb": "Weights & Biases",
    "inference": "load, generate, evaluate",
    "interop": "Hugging Face, LitGPT, llama.cpp",
    "training": "the loop, resume, faults, metrics",
    "report": "a run as one HTML page",
    "diagnostics": "plan, bench, verify-resume",
    "cli": "options in, one call, exit code out",
}

WIDTH, BOX_WIDTH, PASS_WIDTH, BOX_HEIGHT, GAP, MARGIN = 960, 208, 20, 48, 44, 24

STYLE = """\
  .page { fill: #ffffff; } .box { fill: #eef2f7; stroke: #8494a8; } .ground { fill: #dfe7f0; stroke: #8494a8; }
  .name { fill: #16202c; font: 600 14px ui-monospace, Consolas, Menlo, monospace; }
  .does { fill: #4a5a6c; font: 11.5px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  .arrow { stroke: #8494a8; fill: none; stroke-width: 1.3; } .head { fill: #8494a8; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } .box { fill: #1b2430; stroke: #6b7c91; } .ground { fill: #263242; stroke: #6b7c91; }
    .name { fill: #e6edf3; } .does { fill: #a9b7c6; } .arrow { stroke: #6b7c91; } .head { fill: #6b7c91; }
  }"""


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Room -> the length of the longest way down from it; 0 for the ground alone."""
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            lowest = 0 if room == "ground" else 1
            found[room] = max((floor(below) + 1 for below in graph[room]), default=lowest)
        return found[room]

    for room in graph:
        floor(room)
    return found


def without_detours(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The transitive reduction: an arrow is left out where a longer way leads to the same room."""

    def reached(room: str) -> set[str]:
        return {below for next_ in graph[room] for below in {next_} | reached(next_)}

    return {
        room: {target for target in targets if not any(target in reached(o) for o in targets - {target})}
        for room, targets in graph.items()
    }


def merged(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph with the ground floor as one node, and without the front of the package."""
    result: dict[str, set[str]] = {"ground": set()}
    for room, targets in graph.items():
        if room not in (*GROUND, house.PACKAGE):
            result[room] = {"ground" if target in GROUND else target for target in targets}
    return result


def drawing() -> str:
    """The picture as the text of an SVG file."""
    graph = merged(house.room_graph())
    floor_of = floors(graph)
    rows, ways = _laid_out(without_detours(graph), floor_of)
    height = 2 * MARGIN + len(rows) * BOX_HEIGHT + (len(rows) - 1) * GAP
    middle = {node: x for row in rows for node, x in _spread(row).items()}
    top: dict[str, float] = {
        node: height - MARGIN - BOX_HEIGHT - floor * (BOX_HEIGHT + GAP)
        for floor, row in enumerate(rows)
        for node in row
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of litmoe and what each imports from">',
        f"<style>\n{STYLE}\n</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="10"/>',
    ]
    lines += [_arrow(way, middle, top) for way in ways]
    for row in rows:
        for room in row:
            if room in graph:
                lines += _box(room, middle[room], top[room])
    return "\n".join([*lines, "</svg>"]) + "\n"


def _laid_out(
    arrows: dict[str, set[str]], floor_of: dict[str, int]
) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of rooms, lowest first, and the way of each arrow through them.

    An arrow over several floors takes a narrow place in each row that it passes. Places are sorted by the mean
    place of their neighbours, upward and downward in turn, so that few arrows cross (Sugiyama's method).
    """
    rows: list[list[str]] = [[] for _ in range(max(floor_of.values()) + 1)]
    order = {room: index for index, room in enumerate(("ground", *house.ROOMS))}
    for room in sorted(floor_of, key=order.__getitem__):
        rows[floor_of[room]].append(room)
    ways = []
    for room in sorted(arrows, key=order.__getitem__):
        for target in sorted(arrows[room], key=order.__getitem__):
            passed = range(floor_of[room] - 1, floor_of[target], -1)
            between = [f"{room} to {target} at {floor}" for floor in passed]
            for floor, place in zip(passed, between, strict=True):
                rows[floor].append(place)
            ways.append([room, *between, target])
    neighbours: dict[str, set[str]] = {place: set() for row in rows for place in row}
    for way in ways:
        for upper, lower in pairwise(way):
            neighbours[upper].add(lower)
            neighbours[lower].add(upper)
    for sweep in range(12):
        for floor in range(1, len(rows)) if sweep % 2 else range(len(rows) - 2, -1, -1):
            fixed = _spread(rows[floor - 1 if sweep % 2 else floor + 1])
            now = _spread(rows[floor])
            means = {}
            for place in rows[floor]:
                beside = [fixed[other] for other in neighbours[place] if other in fixed]
                means[place] = sum(beside) / len(beside) if beside else now[place]
            rows[floor].sort(key=means.__getitem__)
    return rows, ways


def _spread(row: list[str]) -> dict[str, float]:
    """Where the middles of a row's places are, evenly over the width of the picture."""
    widths = [(BOX_WIDTH if place in DOES else PASS_WIDTH) for place in row]
    space = (WIDTH - sum(widths)) / (len(row) + 1)
    found, left = {}, 0.0
    for place, width in zip(row, widths, strict=True):
        found[place] = left + space + width / 2
        left += space + width
    return found


def _arrow(way: list[str], middle: dict[str, float], top: dict[str, float]) -> str:
    x, y = middle[way[0]], top[way[0]] + BOX_HEIGHT
    path = f"M{x:.0f},{y:.0f}"
    for place in way[1:]:
        last = place == way[-1]
        to_x = middle[way[-2]] if place == "ground" else middle[place]  # the ground is as wide as the page
        to_y = top[place] - (2 if last else 0)
        bend = (to_y - y) / 2
        path += f" C{x:.0f},{y + bend:.0f} {to_x:.0f},{to_y - bend:.0f} {to_x:.0f},{to_y:.0f}"
        x, y = to_x, to_y
        if not last:
            y += BOX_HEIGHT
            path += f" L{x:.0f},{y:.0f}"
    return f'<path class="arrow" marker-end="url(#head)" d="{path}"/>'


def _box(room: str, x: float, y: float) -> list[str]:
    ground = room == "ground"
    x, width = (WIDTH / 2, WIDTH - 2 * MARGIN) if ground else (x, BOX_WIDTH)
    files = " · ".join(f"{file}.py" for file in GROUND)
    does = "for every room: errors, messages, files that are whole or not there" if ground else DOES[room]
    return [
        f'<rect class="{"ground" if ground else "box"}" x="{x - width / 2:.0f}" y="{y:.0f}" width="{width}" '
        f'height="{BOX_HEIGHT}" rx="6"/>',
        f'<text class="name" x="{x:.0f}" y="{y + 20:.0f}" text-anchor="middle">'
        f"{escape(files if ground else room + '/')}</text>",
        f'<text class="does" x="{x:.0f}" y="{y + 37:.0f}" text-anchor="middle">{escape(does)}</text>',
    ]


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8", newline="\n")
    print(f"wrote {PICTURE}")
