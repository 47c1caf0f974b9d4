"""What many tests stand on: a small prepared corpus, and a model that trains in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litmoe.config import PrepareConfig, TrainConfig
from litmoe.config_files import merge, parse
from litmoe.data.prepare import prepare

MODEL = {
    "name": "MoE-test",
    "block_size": 64,
    "vocab_size": 512,
    "padded_vocab_size": 512,
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "n_query_groups": 2,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 4,
    "n_expert_per_token": 2,
    "intermediate_size": 48,
    "moe_intermediate_size": 48,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
}


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


@pytest.fixture
def make_config(corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A training configuration of the small model; keyword arguments are settings laid over it."""

    def make(*words: str, **settings: Any) -> TrainConfig:
        base = {
            "model_config": MODEL,
            "out_dir": str(tmp_path / "out"),
            "precision": "32-true",
            "accelerator": "cpu",
            "tokenizer_dir": str(corpus / "tokenizer"),
            "data": {
                "class_path": "litmoe.data.TextFiles",
                "init_args": {
                    "train_data_path": str(corpus / "train"),
                    "val_data_path": str(corpus / "val"),
                    "num_workers": 1,
                },
            },
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
        return parse(TrainConfig, words, merge([base, settings]), "test")

    return make
