"""What the training loop costs besides the model: waiting for data, and recording figures.

    python benchmarks/loop_overhead.py [--steps 40]

The tiny preset on the built-in text, with 0, 1 and 2 reader threads, each in its own process. The parts of the
loop are called as the loop calls them for a step without a checkpoint, and every step is logged (the preset
logs every tenth). Goal: each costs less than 1 % of a step.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import Row, report, table, variant

from litmoe.config import PrepareConfig
from litmoe.config.load import load_train_config
from litmoe.data.prepare import prepare
from litmoe.data.windows import Batch
from litmoe.training.recording.metrics import row_of
from litmoe.training.recording.progress import Progress
from litmoe.training.recording.recorder import Recorder
from litmoe.training.run import Run
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update

WORKERS = (0, 1, 2)


def rows(steps: int = 40, out_dir: Path | None = None) -> list[Row]:
    """Percent of a step, for each number of reader threads."""
    with tempfile.TemporaryDirectory(prefix="litmoe-loop-", dir=out_dir, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _prepare(folder)
        found = []
        for workers in WORKERS:
            shares = variant(__file__, str(folder), str(workers), "--steps", str(steps))
            found.append(Row(f"waiting for data, {workers} threads, of a step", shares["data"], unit="%"))
            found.append(
                Row(f"figures, files and lines, {workers} threads, of a step", shares["records"], unit="%")
            )
    return found


class _Timed:
    """Passes batches through, and sums up the time spent waiting for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.seconds = batches, 0.0

    def __iter__(self) -> "_Timed":
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self.batches)
        self.seconds += time.perf_counter() - start
        return batch


def measure(folder: Path, workers: int, steps: int) -> dict[str, Any]:
    """Medians over the steps after the first ten, in percent of the whole step."""
    run = _run(folder, workers)
    recorder, progress = Recorder(run, resumed=False), Progress(print)
    progress.begin(steps, show=False)
    batches = _Timed(run.data())
    shares: dict[str, list[float]] = {"data": [], "records": []}
    for _ in range(steps):
        batches.seconds = 0.0
        start = time.perf_counter()
        figures = gradients(run, batches)
        update(run, figures, learning_rate=1e-3)
        run.state.step += 1
        run.state.tokens += run.horizon.tokens_per_step
        trained = time.perf_counter()
        row = row_of(run, figures, 1e-3)
        row["tokens_per_second"] = run.horizon.tokens_per_step / (trained - start)
        with contextlib.redirect_stdout(io.StringIO()):
            progress.step(row, 1.0, logged=True)
        recorder.row(row, to_disk=False)
        end = time.perf_counter()
        shares["data"].append(100 * batches.seconds / (end - start))
        shares["records"].append(100 * (end - trained) / (end - start))
    recorder.close("success")
    run.close()
    return {name: statistics.median(values[10:]) for name, values in shares.items()}


def _prepare(folder: Path) -> None:
    prepare(
        PrepareConfig(
            source=["sample"],
            data_dir=folder / "data",
            tokenizer="train",
            vocab_size=2048,
            tokenizer_dir=folder / "tokenizer",
            max_documents=2000,
            progress=False,
        ),
        say=lambda _: None,
    )


def _run(folder: Path, workers: int) -> Run:
    config = load_train_config(
        preset="tiny",
        overrides=[
            *("--data-dir", str(folder / "data"), "--tokenizer-dir", str(folder / "tokenizer")),
            *("--out-dir", str(folder / f"out-{workers}"), f"--data.init_args.num_workers={workers}"),
        ],
    )
    return set_up(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", nargs="*", help="folder and number of threads, to measure in this process")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out-dir", type=Path)
    args = parser.parse_args()
    if args.variant:
        folder, workers = args.variant
        report(measure(Path(folder), int(workers), args.steps))
    else:
        print(table(rows(args.steps, args.out_dir)))


if __name__ == "__main__":
    main()
