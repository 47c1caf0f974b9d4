"""Reading ``metrics.csv`` back: the same figures by either reader, whatever a killed run left at its end."""

import csv
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from litmoe.errors import LitMoEError
from litmoe.training.recording import metrics_file
from litmoe.training.recording.metrics_file import MetricsFile, read_columns


def _read(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    blocks = list(read_columns(path, names))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


@pytest.fixture(params=["csv", "arrow"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two readers, whatever the file's size."""
    monkeypatch.setattr(metrics_file, "_ARROW_FROM_BYTES", 1 << 40 if request.param == "csv" else 0)
    return str(request.param)


def test_what_was_written_is_read(tmp_path: Path, reader: str) -> None:
    file = MetricsFile(tmp_path / "metrics.csv", ["step", "train_loss", "val_loss"], resume_step=None)
    for step in range(1, 10_001):
        row = {"step": step, "train_loss": 1 / step} | ({"val_loss": 2.5} if step % 1000 == 0 else {})
        file.write(row, to_disk=False)
    file.close()
    figures = _read(tmp_path / "metrics.csv")
    assert figures["step"].tolist() == list(range(1, 10_001))
    assert figures["train_loss"].tolist() == [1 / step for step in range(1, 10_001)]
    assert np.isfinite(figures["val_loss"]).sum() == 10
    assert list(_read(tmp_path / "metrics.csv", ["val_loss", "nothing"])) == ["step", "val_loss"]


@pytest.mark.parametrize(
    "tail", ["3", "3,0.", "3,0.1,9", "x,1.0", "3,word", "3,nan", "3,inf", "3.5,1.0", ",,"]
)
def test_a_damaged_end_costs_no_row_before_it(tmp_path: Path, reader: str, tail: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,train_loss\n1,0.5\n2,0.25\n{tail}", encoding="utf-8")
    figures = _read(path)
    assert figures["train_loss"][:2].tolist() == [0.5, 0.25]
    assert figures["step"].tolist() in ([1.0, 2.0], [1.0, 2.0, 3.0])


def test_both_readers_agree_where_a_cell_is_no_number(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "metrics.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "a", "b"])
        for step in range(1, 30_001):  # some blocks of either reader
            writer.writerow([step, "what" if step in (5, 29_000) else step * 0.1, ""])
    figures = _read(path)
    assert figures["step"].tolist() == list(range(1, 30_001))
    assert np.flatnonzero(np.isnan(figures["a"])).tolist() == [4, 28_999]
    assert np.isnan(figures["b"]).all()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with pytest.raises(LitMoEError, match="cannot be read"):
        list(read_columns(path))
    path.write_bytes(b"\xff\xfe\x00a,b\n1,2\n")
    with pytest.raises(LitMoEError, match="not the metrics of a run"):
        list(read_columns(path))
