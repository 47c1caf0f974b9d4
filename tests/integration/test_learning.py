"""The whole of it learns: text in, a model out that has found more than counting words can."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.trigram import trigram_loss

from litmoe import load_train_config, train
from litmoe.config import EvaluateConfig, GenerateConfig
from litmoe.data.token_store import TokenStore
from litmoe.inference.evaluate import evaluate
from litmoe.inference.generate import generate
from litmoe.inference.loading import LoadedModel, load_checkpoint
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.moe.layer import MoE

TOKENS = 650_000  # about a minute and a half on one core; at 500,000 it is no better than trigrams
SMALL = {"n_layer": 2, "n_embd": 128, "n_head": 4, "intermediate_size": 256, "moe_intermediate_size": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learning")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    """The tiny preset with a smaller model, from nothing, on the built-in corpus."""
    config = load_train_config(
        preset="tiny",
        overrides=[
            f"--data-dir={folder / 'data'}",
            f"--tokenizer_dir={folder / 'tokenizer'}",
            f"--out-dir={folder / 'run'}",
            f"--max-tokens={TOKENS}",
            *(f"--model_config.{name}={value}" for name, value in SMALL.items()),
            "--optimizer.init_args.lr=0.005",
            "--eval.interval=1000",
            "--train.save_interval=null",
            "--sample.interval=null",
            "--sample.final=0",
        ],
    )
    return load_checkpoint(train(config).checkpoint, "cpu")


def measure(loaded: LoadedModel) -> float:
    return evaluate(EvaluateConfig(progress=False), loaded).loss


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_it_learns_more_than_a_trigram_model_of_the_same_tokens(loaded: LoadedModel, folder: Path) -> None:
    text, val = (TokenStore.open(folder / "data" / split / split) for split in ("train", "val"))
    counted = trigram_loss(text.tokens[:TOKENS].astype(np.int64), val.tokens.astype(np.int64), 2048)
    untrained = GPT(loaded.model.config)
    initialize(untrained, 42)
    before = measure(LoadedModel(loaded.folder, untrained.eval(), loaded.tokenizer, loaded.settings))
    after = measure(loaded)
    print(f"validation loss {before:.3f} before, {after:.3f} after; trigram model {counted:.3f}")
    assert before == pytest.approx(np.log(2048), rel=0.05)
    assert after < counted - 0.2


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_router_has_learned(loaded: LoadedModel) -> None:
    """With the router it began with, or experts chosen at random, the model is much worse."""
    after = measure(loaded)
    first = GPT(loaded.model.config)
    initialize(first, 42)
    layers = [module for module in loaded.model.modules() if isinstance(module, MoE)]
    kept = [moe.gate.weight.detach().clone() for moe in layers]
    with torch.no_grad():
        for moe, old in zip(layers, (m for m in first.modules() if isinstance(m, MoE)), strict=True):
            moe.gate.weight.copy_(old.gate.weight)
        with_first_router = measure(loaded)
        for moe, weight in zip(layers, kept, strict=True):
            moe.gate.weight.copy_(weight.roll(1, dims=0))  # every expert gets another one's tokens
        with_other_experts = measure(loaded)
        for moe, weight in zip(layers, kept, strict=True):
            moe.gate.weight.copy_(weight)
    assert measure(loaded) == after
    assert min(with_first_router, with_other_experts) > after + 0.3


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_expert_is_used_and_stories_end(loaded: LoadedModel) -> None:
    load = np.array(evaluate(EvaluateConfig(progress=False), loaded).expert_load)
    assert load.min() > 0.01 and load.max() < 0.5
    texts = generate(
        GenerateConfig(num_samples=6, max_new_tokens=250, temperature=0.5, seed=1), loaded=loaded
    )
    ends = [text.rstrip()[-1] in '.!?"' and len(text) < 1400 for text in texts]
    assert sum(ends) >= 4
    assert len(set(texts)) == 6
