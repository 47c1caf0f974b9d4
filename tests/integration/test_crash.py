"""A training process is killed at random instants, in steps and in saves: nothing is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.killing import Trainer, metrics, train_uninterrupted, train_with_kills

from litmoe import checkpoint
from litmoe.config import TrainConfig

MakeConfig = Callable[..., TrainConfig]

STEPS = 60
RUN = {"train": {"max_steps": STEPS, "save_interval": 4}, "eval": {"interval": 7, "max_iters": 4}}


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_is_the_run_that_would_have_been(
    make_config: MakeConfig, tmp_path: Path, plain_python: str
) -> None:
    """Six kills; every start saves in the other way than the one before: at once, or in the background."""

    def make(start: int) -> TrainConfig:
        config = make_config("--resume=auto", out_dir=str(tmp_path / "killed"), **RUN)
        config.checkpoint.asynchronous = start % 2 == 0
        return config

    whole = make_config(out_dir=str(tmp_path / "whole"), **RUN)
    with Trainer(plain_python) as trainer:
        seconds = train_uninterrupted(trainer, whole, tmp_path / "whole.yaml")
        ordeal = train_with_kills(
            trainer, make, tmp_path / "killed.yaml", STEPS, seconds, kills=6, seed=1, aim_at_saves=True
        )
    assert len(ordeal.kills) >= 4 and any(kill.saving for kill in ordeal.kills), ordeal
    assert ordeal.looks > 20
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert len(metrics(tmp_path / "whole")) == STEPS
    states = [checkpoint.load_model(tmp_path / name / "final") for name in ("whole", "killed")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    optimizers = [checkpoint.load_trainer(tmp_path / n / "final")["optimizer"] for n in ("whole", "killed")]
    for old, new in zip(*(optimizer["state"].values() for optimizer in optimizers), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
