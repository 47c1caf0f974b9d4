"""Run all benchmarks and write their tables into docs/PERFORMANCE.md.

    python benchmarks/performance.py [--only startup decode ...] [--repeats 1]

Rewrites the part of the page between its two marks, with machine and date; the text around it stays. With `--only`
the tables of the other benchmarks stay as they are.
"""

import argparse
import importlib
import os
import platform
import re
from datetime import date

import torch
from measuring import ROOT, table

PAGE = ROOT / "docs" / "PERFORMANCE.md"
BENCHMARKS = {
    "startup": "Start-up",
    "prepare": "Preparing text",
    "training_step": "Training step",
    "expert_layer": "Expert layer",
    "loss_head": "Loss head",
    "loop_overhead": "Training loop",
    "decode": "Generation",
}
BEGIN, END = "<!-- measured: benchmarks/performance.py -->", "<!-- end of what was measured -->"


def section(name: str, repeats: int) -> str:
    """A benchmark's heading, its table, and when and on which machine it ran."""
    module = importlib.import_module(name)
    rows = module.rows() if name == "loop_overhead" else module.rows(repeats)
    where = f"{platform.system()}, {_processor()}, {os.cpu_count()} cores, torch {torch.__version__}"
    return f"### {BENCHMARKS[name]}\n\n`benchmarks/{name}.py`, {date.today()}, {where}\n\n{table(rows)}\n"


def write(sections: dict[str, str]) -> None:
    """Put the sections into the page, each in place of its predecessor."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    measured, after = rest.split(END)
    old = {part.splitlines()[0]: part for part in re.split(r"^### ", measured, flags=re.M)[1:]}
    parts = []
    for name, heading in BENCHMARKS.items():
        if name in sections:
            parts.append(sections[name])
        elif heading in old:
            parts.append(f"### {old[heading].rstrip()}\n")
    PAGE.write_text(
        before + BEGIN + "\n\n" + "\n".join(parts) + "\n" + END + after, encoding="utf-8", newline="\n"
    )


def _processor() -> str:
    try:
        for line in open("/proc/cpuinfo", encoding="utf-8"):  # noqa: PTH123, SIM115  no file on a disk
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    for name in args.only:
        done = section(name, args.repeats)
        print(done, flush=True)
        write({name: done})


if __name__ == "__main__":
    main()
