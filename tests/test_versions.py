"""A run that an earlier version left behind goes on, and ends as it would have ended there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.versions import EXPECTED, FIRST, LAST, VERSIONS, figures, fingerprints, machine

from litmoe.config import EvaluateConfig
from litmoe.config.load import load_train_config
from litmoe.inference.evaluate import evaluate
from litmoe.training.loop import train

CHECKPOINT = Path(f"run/step-{FIRST:08d}")
CLOSE = {"rel": 1e-6, "abs": 1e-6}  # on another machine, where sums are made in another order

pytestmark = pytest.mark.parametrize(
    "version", sorted(path.name for path in VERSIONS.iterdir() if (path / EXPECTED).is_file())
)


@pytest.fixture
def kept(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Lay out what was kept in a folder of its own, step into it, and return what is expected.

    The files' times are those of the copy, as after a clone or an unpacked archive.
    """
    shutil.copytree(VERSIONS / version, tmp_path / "kept", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / "kept")
    expected: dict[str, Any] = json.loads(Path(EXPECTED).read_text(encoding="utf-8"))
    return expected


def test_it_resumes_and_ends_alike(kept: dict[str, Any]) -> None:
    config = load_train_config(Path("run.yaml"), overrides=["--resume", "auto"])
    final = train(config).checkpoint
    rows = figures(Path("run/metrics.csv"))
    assert [row["step"] for row in rows] == list(range(1, LAST + 1))
    if machine() == kept["machine"]:
        assert rows == kept["metrics"]
        assert fingerprints(final) == kept["final"]
    else:
        for row, expected in zip(rows, kept["metrics"], strict=True):
            measured = {name: value for name, value in expected.items() if value is not None}
            assert row == {**row, **{n: pytest.approx(v, **CLOSE) for n, v in measured.items()}}
            assert {name for name, value in row.items() if value is not None} == set(measured)


def test_it_evaluates_alike(kept: dict[str, Any]) -> None:
    found = evaluate(EvaluateConfig(checkpoint=CHECKPOINT, accelerator="cpu", progress=False))
    expected = kept["evaluation"]
    exact = ("tokens", "documents", "bytes", "max_seq_length")
    assert {name: getattr(found, name) for name in exact} == {name: expected[name] for name in exact}
    for name in ("loss", "perplexity", "bits_per_byte"):
        same = expected[name] if machine() == kept["machine"] else pytest.approx(expected[name], **CLOSE)
        assert getattr(found, name) == same


def test_its_tokens_are_used_as_they_are(kept: dict[str, Any]) -> None:
    """Nothing is tokenized again, although the text's files are younger than the store has recorded."""
    stores = [Path("data/train/train/tokens.bin"), Path("data/val/val/tokens.bin")]
    before = [(path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in stores]
    train(load_train_config(Path("run.yaml"), overrides=["--resume", "auto", "--max-steps", "5"]))
    assert [(path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in stores] == before
