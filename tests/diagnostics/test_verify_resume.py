"""The proof itself: it sees what is different, and finds nothing where there is nothing."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from litmoe.cli.main import main
from litmoe.config import TrainConfig, as_plain
from litmoe.diagnostics.verify_resume import Kill, Verification, first_difference, verify_resume
from litmoe.errors import LitMoEError
from litmoe.training.loop import train

MakeConfig = Callable[..., TrainConfig]


def test_differences_are_seen(make_config: MakeConfig, tmp_path: Path) -> None:
    for name, words in (("a", []), ("b", []), ("c", ["--seed=1"]), ("d", ["--eval.interval=3"])):
        train(make_config(*words, out_dir=str(tmp_path / name)))
    assert first_difference(tmp_path / "a", tmp_path / "b") is None
    assert (first_difference(tmp_path / "a", tmp_path / "c") or "").startswith("weights, ")
    assert "val_loss" in (first_difference(tmp_path / "a", tmp_path / "d") or "")
    metrics = tmp_path / "b" / "metrics.csv"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:3], *lines[2:]]))
    assert "metrics: 6 and 7 entries" in (first_difference(tmp_path / "a", tmp_path / "b") or "")


def test_numbers_out_of_range_and_a_run_that_fails_are_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(LitMoEError, match="--steps must be 2 or more"):
        verify_resume(make_config(), steps=1, kills=1, seed=0)
    assert main(["verify-resume", "--help"]) == 0


@pytest.mark.parametrize(
    ("kills", "in_steps"),
    [
        ([], 0),
        ([Kill(5, saving=True)], 0),
        ([Kill(0, saving=False)], 0),  # perhaps before its first step
        ([Kill(4, saving=False, started_at=4)], 0),
        ([Kill(12, saving=False, started_at=8)], 0),  # all steps were done
        ([Kill(7, saving=False, started_at=4), Kill(9, saving=True, started_at=6)], 1),
    ],
)
def test_a_proof_says_when_no_kill_hit_a_running_step(kills: list[Kill], in_steps: int) -> None:
    result = Verification(12, kills)
    said = result.verdict()
    assert result.in_steps == in_steps
    assert (
        said[0].startswith("identical: ")
        and f"with {len(kills)} kills ({in_steps} of them in a running" in said[0]
    )
    assert (len(said) == 2 and "no kill hit a running step" in said[1]) == (in_steps == 0)


@pytest.mark.slow
def test_a_configuration_is_verified(make_config: MakeConfig, tmp_path: Path, plain_python: str) -> None:
    """As a person would call it; nothing is left behind, and out_dir is not touched."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(as_plain(make_config())))
    before = sorted(path.name for path in tmp_path.iterdir())
    words = ["-m", "litmoe", "verify-resume", "--config", str(file), "--steps=12", "--kills=1"]
    done = subprocess.run([plain_python, *words], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0 and "identical" in done.stdout, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    wrong = [*words, "--max-seq-length=65"]
    done = subprocess.run([plain_python, *wrong], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 2
    assert re.search(r"ended with code 2: .*longer than the model's block_size", done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
