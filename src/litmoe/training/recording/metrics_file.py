"""``metrics.csv``: its columns, writing it row by row, and reading it in bounded memory. Imports no torch."""

import csv
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from litmoe.errors import LitMoEError
from litmoe.files import reason_of

METRICS_FILE = "metrics.csv"

Row = dict[str, float | int]

BASE_COLUMNS = (
    "step",
    "train_loss",
    "val_loss",
    "learning_rate",
    "epoch",
    "time",
    "iter_tokens",
    "total_tokens",
    "tokens_per_second",
    "val_bits_per_byte",
    "grad_norm",
    "flops_per_second",
    "mfu",
    "skipped_steps",
    "rollbacks",
    "device_memory",
    "host_memory",
)
MOE_COLUMNS = ("switch_loss", "z_loss", "load_max_over_mean", "router_entropy", "dead_experts")


def columns(n_moe_layers: int, n_expert: int) -> list[str]:
    """All columns of a run's metrics; those of the experts only where there are any."""
    if n_moe_layers == 0:
        return list(BASE_COLUMNS)
    layers = range(n_moe_layers)
    per_layer = [f"{name}_L{layer}" for name in MOE_COLUMNS[2:] for layer in layers]
    loads = [f"load_L{layer}_E{expert}" for layer in layers for expert in range(n_expert)]
    return [*BASE_COLUMNS, *MOE_COLUMNS, *per_layer, *loads]


class MetricsFile:
    """``metrics.csv``: a row is on disk when ``write`` returns; empty where not measured."""

    def __init__(self, path: Path, names: Sequence[str], resume_step: int | None) -> None:
        """Open for a new run, or for one that goes on after ``resume_step``: later rows are dropped.

        Raises:
            LitMoEError: the file cannot be written.
        """
        self.path = path
        self.names = list(names)
        self._last_step = 0
        self._open(resume_step)

    def write(self, row: Mapping[str, Any], to_disk: bool = True) -> None:
        """Add a row; where the run has gone back, the rows from that step on are dropped first.

        Every row is with the system at once, so that no killed process loses one. ``to_disk`` waits until this one
        and all before it would outlast a crash of the machine too. That takes milliseconds, and only the rows of
        steps with a checkpoint need it: a resumed run writes those after them again.

        Raises:
            LitMoEError: the disk is full, or the folder has gone.
        """
        if row["step"] <= self._last_step:
            self.close()
            self._open(row["step"] - 1)
        self._last_step = row["step"]
        try:
            self._writer.writerow(row)
            self._file.flush()
            if to_disk:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        self._file.close()

    def _open(self, up_to: int | None) -> None:
        """Rewrite the file with the rows up to a step, none of them for None, and open it for more."""
        rows = self._rows_up_to(up_to) if up_to is not None and self.path.is_file() else []
        beside = self.path.with_name(f".{self.path.name}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.names, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
            beside.replace(self.path)
            self._file = self.path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error
        self._writer = csv.DictWriter(self._file, self.names)
        self._last_step = int(rows[-1]["step"]) if rows else 0

    def _unwritable(self, error: OSError) -> LitMoEError:
        return LitMoEError(f"{self.path}: cannot be written ({error.strerror}): choose another --out-dir")

    def _rows_up_to(self, step: int) -> list[dict[str, str]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]
        return [row for row in rows if int(row["step"]) <= step]


Columns = dict[str, np.ndarray]
"""Name of a column -> its values, float64, NaN where not measured; all of one length."""

_BLOCK_ROWS = 4096
_ARROW_FROM_BYTES = 4 << 20  # below, importing pyarrow costs more than it saves
_ARROW_BLOCK_BYTES = 1 << 20


def read_columns(path: Path, names: Collection[str] | None = None) -> Iterator[Columns]:
    """The rows of a ``metrics.csv`` in blocks, as columns of numbers, in bounded memory.

    Rows without a whole step are dropped: the last one of a run that is being written, or was killed, may be half
    there. Cells that are no number count as not measured. A million rows of 64 columns take a few seconds.

    Args:
        path: the file.
        names: the columns wanted, ``step`` always among them; None: all. Those that the file lacks are left out.

    Raises:
        LitMoEError: the file cannot be read, or is no ``metrics.csv``.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            header = next(csv.reader(file), [])
            if "step" not in header:
                raise LitMoEError(f"{path}: not the metrics of a run: it has no column step")
            wanted = [name for name in header if names is None or name == "step" or name in names]
            if path.stat().st_size < _ARROW_FROM_BYTES:
                yield from _by_csv(file, header, wanted)
                return
        yield from _by_arrow(path, header, wanted)
    except OSError as error:
        raise LitMoEError(f"{path}: cannot be read: {reason_of(error)}") from error


def _by_csv(file: TextIO, header: list[str], wanted: list[str]) -> Iterator[Columns]:
    """Row by row: any cell may be anything."""
    places = [header.index(name) for name in wanted]
    rows: list[list[float]] = []
    for cells in csv.reader(line.replace("\0", "") for line in file):
        if len(cells) == len(header):
            rows.append([_number(cells[place]) for place in places])
        if len(rows) == _BLOCK_ROWS:
            yield from _whole_steps(dict(zip(wanted, np.array(rows).T, strict=True)))
            rows = []
    if rows:
        yield from _whole_steps(dict(zip(wanted, np.array(rows).T, strict=True)))


def _by_arrow(path: Path, header: list[str], wanted: list[str]) -> Iterator[Columns]:
    """Some thirty times as fast, for cells that are numbers or empty; the rest of a file with others by csv."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    last = -1.0
    try:
        with arrow_csv.open_csv(
            path,
            arrow_csv.ReadOptions(block_size=_ARROW_BLOCK_BYTES, use_threads=False),
            arrow_csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.float64()), include_columns=wanted, null_values=[""]
            ),
        ) as reader:
            for batch in reader:
                arrays = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
                for block in _whole_steps(dict(zip(wanted, arrays, strict=True))):
                    yield block
                    last = block["step"][-1]
    except pa.ArrowInvalid:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            next(file)
            for block in _by_csv(file, header, wanted):
                rest = block["step"] > last
                if rest.any():
                    yield {name: values[rest] for name, values in block.items()}


def _whole_steps(block: Columns) -> Iterator[Columns]:
    step = block["step"]
    good = np.isfinite(step) & (step == np.floor(step))
    if good.all():
        yield block
    elif good.any():
        yield {name: values[good] for name, values in block.items()}


def _number(cell: str) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        return np.nan
