"""From a configuration to a run: the configuration is settled once, in a copy, and nobody writes to it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.training import loop, resume
from litmoe.training.device import settle_compile, settle_precision
from litmoe.training.faults import make_room
from litmoe.training.loop import train
from litmoe.training.recording.events import EventLog
from litmoe.training.recording.metrics import StepFigures
from litmoe.training.run import Run, State
from litmoe.training.setup import set_up

MakeConfig = Callable[..., TrainConfig]


@pytest.mark.parametrize("words", [[], ["--precision=null"], ["--precision=bf16-mixed"]])
def test_training_leaves_its_argument_as_it_is(
    make_config: MakeConfig, tmp_path: Path, words: list[str]
) -> None:
    """What it really did is in the checkpoint; the same configuration then continues the run."""
    config = make_config(*words, "--resume=auto", "--max-steps=2")
    before = as_plain(config)
    result = train(config)
    assert as_plain(config) == before
    saved = yaml.safe_load((result.checkpoint / "hyperparameters.yaml").read_text())
    assert saved["precision"] in ("32-true", "bf16-mixed")
    assert set(saved) == set(as_plain(config))
    said: list[str] = []
    assert train(replace(config, train=replace(config.train, max_steps=4)), said.append).steps == 4
    changed = [line for line in said if "changed settings" in line]
    assert changed == ["continues with changed settings: train.max_steps 2 -> 4"]


def test_a_run_has_a_configuration_of_its_own(make_config: MakeConfig) -> None:
    config = make_config()
    run = set_up(config)
    try:
        settled = as_plain(run.config)
        config.train.micro_batch_size, config.data.init_args["seed"] = 1, 7
        config.optimizer.init_args["lr"] = 1.0
        assert as_plain(run.config) == settled
    finally:
        run.close()


def test_settling_returns_copies(make_config: MakeConfig) -> None:
    config = make_config("--precision=null", "--compile=true")
    before = as_plain(config)
    settled = settle_precision(config, "cpu")
    assert settled.precision == "32-true" and settled.train is not config.train
    assert settle_compile(settled, torch.device("meta")).compile is False or settled.compile
    assert as_plain(config) == before


def test_a_micro_batch_that_memory_halved_is_a_part_of_the_state(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """It goes on with the run, until somebody chooses another one; the configuration never changes."""
    words = ("--faults.on_oom=shrink", "--max-steps=2")
    said: list[str] = []
    run = set_up(make_config(*words), EventLog(said.append))
    make_room(run, torch.OutOfMemoryError("out of memory"))
    assert (run.micro_batch_size, run.accumulation, run.config.train.micro_batch_size) == (2, 4, 4)
    assert next(run.data())[0].shape == (2, 64)
    assert "goes on with micro-batches of 2, 4 per step" in said[0]
    folder = tmp_path / "halved"
    checkpoint.save(folder, resume.contents(run))
    run.close()
    for more, expected in (([], 2), (["--train.micro_batch_size=8"], 8), (["--global-batch-size=4"], 2)):
        other = set_up(make_config(*words, *more))
        resume.load(other, folder)
        assert other.micro_batch_size == expected
        other.close()
    indivisible = set_up(make_config(*words, "--train.micro_batch_size=4", "--global-batch-size=4"))
    indivisible.state.micro_batch_size = 3
    checkpoint.save(folder, resume.contents(indivisible))
    resume.load(indivisible, folder)
    assert indivisible.micro_batch_size == 4
    indivisible.close()


def test_a_state_of_an_older_version_gets_defaults() -> None:
    """Its keys are those of version 0.1.0, which had no micro-batch of its own."""
    old = dict(vars(State(step=5)))
    del old["micro_batch_size"]
    assert State(**old) == State(step=5)


def test_a_run_never_writes_to_its_configuration(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its start through validation, saving, texts and memory that runs out to its end."""
    seen: list[tuple[TrainConfig, dict[str, object]]] = []
    real, failed = loop.gradients, list[int]()

    def gradients(run: Run, *rest: Any) -> StepFigures:
        if run.state.step == 0 and not failed:
            seen.append((run.config, as_plain(run.config)))
        if run.state.step == 3 and not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(run, *rest)

    monkeypatch.setattr(loop, "gradients", gradients)
    config = make_config("--faults.on_oom=shrink", "--sample.interval=2", "--sample.max_new_tokens=3")
    assert train(config).steps == 6 and failed
    (settled, at_start), *_ = seen
    assert as_plain(settled) == at_start
