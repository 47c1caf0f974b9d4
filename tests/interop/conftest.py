"""A trained checkpoint of a small Mixtral-like model, and checkpoints of other models with random weights."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small import MODEL as SMALL
from support.small import run_settings

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.config.load import parse
from litmoe.model.config import load_model_config
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.training.loop import train

MODEL: dict[str, Any] = SMALL | {"padded_vocab_size": 520}  # more rows than tokens, as a padded model has


@pytest.fixture(scope="session")
def model_settings() -> dict[str, Any]:
    return dict(MODEL)


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 40 steps: enough for its text to follow the corpus a little."""
    settings = {
        **run_settings(corpus, tmp_path_factory.mktemp("trained") / "run", num_workers=0),
        "model_config": MODEL,
        "train": {"global_batch_size": 8, "micro_batch_size": 8, "max_steps": 40, "min_lr": 1e-4},
        "eval": {"interval": 40, "max_iters": 4},
        "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.01}},
    }
    return train(parse(TrainConfig, [], settings)).checkpoint


@pytest.fixture
def make_checkpoint(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint with random weights: the small model with other fields, in any dtype, tied or not."""

    def make(dtype: torch.dtype = torch.float32, tied: bool = False, **fields: Any) -> Path:
        config = load_model_config({**MODEL, **fields})
        model = GPT(config)
        initialize(model, seed=1)
        model.to(dtype)
        if tied:
            model.lm_head.weight = model.transformer.wte.weight
        folder = tmp_path / "made"
        checkpoint.save(
            folder,
            checkpoint.Contents(
                step=1,
                model=model.state_dict(),
                trainer={},
                model_config=asdict(config),
                settings={"train": {"tie_embeddings": tied}},
                tokenizer_dir=corpus / "tokenizer",
            ),
        )
        return folder

    return make
