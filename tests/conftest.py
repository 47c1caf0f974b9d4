"""What many tests build on: a small prepared corpus, and a model that trains in seconds."""

import os
import sys

# Two test processes on two cores leave one core for each. Must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests start Python some thirty times: imports take 8 seconds with torch's bytecode cached, 22 without.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.environments import linked_environment
from support.small import run_settings

from litmoe.config import PrepareConfig, TrainConfig
from litmoe.config.load import merge, parse
from litmoe.data.prepare import prepare


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with a slow test first: last, they would keep one core busy while the other idles."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with litmoe's requirements and no extras, for commands; this one where links are refused."""
    try:
        return str(linked_environment(tmp_path_factory.mktemp("plain") / "env", ["litmoe"]))
    except OSError:
        return sys.executable


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with ``train``, ``val`` and ``tokenizer``: 60 stories, a vocabulary of 512."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare(
        PrepareConfig(
            source=["sample"],
            data_dir=folder,
            tokenizer="train",
            vocab_size=512,
            tokenizer_dir=folder / "tokenizer",
            val_fraction=0.2,
            max_documents=60,
            progress=False,
        ),
        say=lambda _: None,
    )
    return folder


def _config(corpus: Path, out_dir: Path, args: Sequence[str], settings: dict[str, Any]) -> TrainConfig:
    base = {
        **run_settings(corpus, out_dir, num_workers=1),
        "train": {
            "global_batch_size": 8,
            "micro_batch_size": 4,
            "max_steps": 6,
            "save_interval": 2,
            "lr_warmup_steps": 2,
            "min_lr": 0.0001,
        },
        "eval": {"interval": 4, "max_iters": 6},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.003}},
    }
    return parse(TrainConfig, args, merge([base, settings]))


@pytest.fixture
def make_config(corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Makes a training configuration of the small model from options and settings of a test."""

    def make(*args: str, out_dir: str | None = None, **settings: Any) -> TrainConfig:
        return _config(corpus, Path(out_dir or tmp_path / "out"), args, settings)

    return make


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The final checkpoint of the small model after 80 steps."""
    from litmoe.training.loop import train

    args = ["--max-steps=80", "--train.save-interval=null", "--eval.max-iters=100000"]
    return train(_config(corpus, tmp_path_factory.mktemp("trained"), args, {})).checkpoint


@pytest.fixture(scope="session")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of the small model: 6 steps, saved after the second, the fourth and the last."""
    from litmoe.training.loop import train

    out_dir = tmp_path_factory.mktemp("finished") / "out"
    train(_config(corpus, out_dir, [], {}))
    return out_dir
