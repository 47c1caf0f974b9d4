"""Ranks are killed at random instants, again and again: nothing hangs, and nothing is lost."""

import os
from pathlib import Path

import pytest
import yaml
from support.distributed import Nursery
from support.rank_kills import GONE_SECONDS, SAVE_INTERVAL, kill_again_and_again
from support.small import run_settings


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked from one process with torch")
def test_ranks_that_are_killed_again_and_again(corpus: Path, tmp_path: Path, plain_python: str) -> None:
    settings = {
        **run_settings(corpus, Path("out"), num_workers=1),
        "train": {"lr_warmup_steps": 2, "min_lr": 0.0001},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.003}},
        "report": False,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    with Nursery(plain_python) as nursery:
        outcome = kill_again_and_again(nursery, tmp_path, kills=20, seed=1)
    assert len(outcome.killed) == 20
    assert outcome.slowest < GONE_SECONDS and outcome.most_lost <= 2 * SAVE_INTERVAL
