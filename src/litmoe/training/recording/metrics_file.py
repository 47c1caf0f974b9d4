"""``metrics.csv``: its columns, writing it row by row, and reading it in bounded memory. Imports no torch."""

import csv
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from litmoe.errors import LitMoEError
from litmoe.files import reason_of, unwritable, whole_file

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
    """``metrics.csv``: a row is with the system when ``write`` returns; cells are empty where not measured."""

    def __init__(self, path: Path, names: Sequence[str], resume_step: int | None) -> None:
        """Open for a new run, or for one that goes on after ``resume_step``: later rows are dropped.

        Raises:
            LitMoEError: the file cannot be read or written.
        """
        self.path = path
        self.names = list(names)
        self._pending = b""
        self._last_step = -1
        self._file = self._open(resume_step)

    @property
    def n_bytes_waiting(self) -> int:
        """Of rows that could not be written, which are added before the next one; 0: all are in the file."""
        return len(self._pending)

    def write(self, row: Mapping[str, Any], to_disk: bool = True) -> None:
        """Add a row; where the run has gone back, the rows from that step on are dropped first.

        Every row is with the system at once, so that no killed process loses one. ``to_disk`` waits until this one
        and all before it would outlast a crash of the machine too. That takes milliseconds, and only the rows of
        steps with a checkpoint need it: a resumed run writes those after them again.

        Raises:
            DiskFullError: the disk has no room for it. It is tried again with the next row, and at the end.
            LitMoEError: the folder has gone, or the disk refuses.
        """
        if row["step"] <= self._last_step:
            self.close()
            self._file = self._open(row["step"] - 1)
        self._last_step = row["step"]
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.names).writerow(row)
        self._pending += text.getvalue().encode()
        try:
            self._add_pending()
            if to_disk:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self.path, error, _ADVICE) from error

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._add_pending()
        self._file.close()

    def _add_pending(self) -> None:
        """Add the rows that are not in the file yet: all of them, or none."""
        size = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(self._pending)
            while written is not None and written < len(self._pending):
                # a disk that fills up takes a part, and refuses the rest
                written += self._file.write(self._pending[written:]) or 0
        except OSError:
            self._file.truncate(size)
            raise
        self._pending = b""

    def _open(self, up_to: int | None) -> io.FileIO:
        """Rewrite the file with the rows up to a step, none of them for None, and open it for more."""
        self._last_step = -1
        with (
            whole_file(self.path, _ADVICE) as building,
            building.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.names, extrasaction="ignore")
            writer.writeheader()
            if up_to is not None and self.path.exists():
                for row in read_rows(self.path):
                    if int(row["step"]) <= up_to:
                        writer.writerow(row)
                        self._last_step = int(row["step"])
        try:
            return self.path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(self.path, error, _ADVICE) from error


_ADVICE = "choose another --out-dir"


def read_metrics(path: Path) -> list[dict[str, str]]:
    """All rows of a ``metrics.csv`` as they stand there, in memory at once; :func:`read_columns` for long runs.

    Raises:
        LitMoEError: the file cannot be read, or is no ``metrics.csv``.
    """
    return list(read_rows(path))


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a ``metrics.csv``, one by one, as name -> text; the text is empty where nothing was measured.

    The last line may be half there, of a run that is being written or was killed: without its end it is dropped,
    and so is any other without a whole step.

    Raises:
        LitMoEError: the file cannot be read, or is no ``metrics.csv``.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.DictReader(line.replace("\0", "") for line in file if line.endswith("\n"))
            if rows.fieldnames is not None and "step" not in rows.fieldnames:
                raise LitMoEError(f"{path}: not the metrics of a run: it has no column step")
            for row in rows:
                if None not in row and None not in row.values() and row["step"].isdecimal():
                    yield row
    except OSError as error:
        raise LitMoEError(f"{path}: cannot be read: {reason_of(error)}") from error
    except csv.Error as error:
        raise LitMoEError(f"{path}: not the metrics of a run: {error}") from error


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
        names: the columns wanted, ``step`` always among them; None: all. Those that the file lacks are skipped.

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
