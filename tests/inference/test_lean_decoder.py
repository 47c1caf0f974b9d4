"""Without LitGPT the same bits: logits, and so the text of a seed."""

import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from litgpt import Config
from support.small import MODEL

from litmoe.config import GenerateConfig
from litmoe.inference.decode import decode_together
from litmoe.inference.generate import generate
from litmoe.inference.lean_config import FIXED, LeanConfig, lean_config, shapes_of
from litmoe.inference.lean_decoder import LeanDecoder
from litmoe.inference.loading import load_checkpoint, load_decoder
from litmoe.inference.model_decoder import ModelDecoder
from litmoe.model.gpt import GPT

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "multi-head": {"n_query_groups": 4},
    "multi-query": {"n_query_groups": 1},
    "partly rotated": {"rotary_percentage": 0.25},
    "dense": {"mlp_class_name": "LLaMAMLP", "n_expert": 0, "n_expert_per_token": 0},
    "scaled routing": {"routed_scaling_factor": 2.5},
    "large weights": {"n_embd": 264, "moe_intermediate_size": 100},
}
WITHOUT_EFFECT = {
    "name", "hf_config", "vocab_size", "padding_multiple", "gelu_approximate", "norm_qk_type", "norm_topk_prob",
    "n_topk_groups", "n_topk_scores_per_group",
}  # fmt: skip
"""Names, what only other layers read, and what only a router in groups reads."""


def pair(dtype: torch.dtype = torch.float32, **settings: Any) -> tuple[GPT, LeanDecoder]:
    torch.manual_seed(0)
    model = GPT(Config(**(MODEL | {"n_head": 4} | settings))).to(dtype).eval()
    for parameter in model.parameters():  # norms too
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.cos, model.sin = model.rope_cache()  # in fp32, as a checkpoint is loaded
    config = lean_config(asdict(model.config))
    assert config is not None
    weights = model.state_dict()
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == shapes_of(config)
    return model, LeanDecoder(config, weights, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_the_models_to_the_bit(variant: str, dtype: torch.dtype) -> None:
    model, lean = pair(dtype, **VARIANTS[variant])
    full, prompt = ModelDecoder(model), torch.randint(512, (17,))
    with torch.inference_mode():
        logits = []
        for decoder in (full, lean):
            decoder.open(2, 30)
            read = decoder.read(prompt)
            decoder.copy(1, 17)
            steps = [decoder.step(torch.tensor([n, n + 1]), 17 + n) for n in range(5)]
            apart = decoder.step(torch.tensor([7, 8]), torch.tensor([20, 18]))
            logits.append([read, *steps, apart])
            decoder.close()
    for ours, theirs in zip(logits[1], logits[0], strict=True):
        assert torch.equal(ours, theirs)


def test_several_prompts_give_the_models_tokens() -> None:
    model, lean = pair()
    prompts = [torch.arange(1, 9), torch.arange(3, 5), torch.arange(1, 9)]
    drawn = []
    for decoder in (model, lean):
        seeds = [torch.Generator().manual_seed(n) for n in range(3)]
        steps = decode_together(decoder, prompts, max_new_tokens=20, end_id=None, generators=seeds)
        drawn.append(list(steps))
    assert drawn[0] == drawn[1]


def test_a_checkpoint_gives_the_same_text_both_ways(trained: Path) -> None:
    assert isinstance(load_decoder(trained, "cpu").decoder, LeanDecoder)
    config = GenerateConfig(checkpoint=trained, prompts=["One day", ""], num_samples=2, accelerator="cpu")
    assert generate(config) == generate(config, loaded=load_checkpoint(trained, "cpu"))


def test_every_field_of_a_model_is_accounted_for() -> None:
    """A field that LitGPT adds must not be ignored in silence."""
    known = {field.name for field in fields(LeanConfig)} | FIXED.keys() | WITHOUT_EFFECT
    found = {field.name for field in fields(Config)}
    # litgpt derives rope_indices only where local and global layers rotate differently
    assert found - known == set(), "say in lean_config.py what a layer makes of it"


@pytest.mark.parametrize(
    "settings",
    [
        {"norm_qk": True},
        {"bias": True, "mlp_class_name": "LLaMAMLP", "n_expert": 0},
        {"parallel_residual": True},
        {"scale_embeddings": True},
        {"name": "Gemma-test"},
        {"n_expert_groups": 2, "n_topk_groups": 1, "n_topk_scores_per_group": 2},
        {"norm_class_name": "LayerNorm"},
        {"final_logit_softcapping": 5.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_models_are_left_to_litgpt(settings: dict[str, Any]) -> None:
    assert lean_config(asdict(Config(**(MODEL | settings)))) is None


def test_settings_of_the_wrong_type_or_missing_are_left_to_the_full_reader() -> None:
    settings = asdict(Config(**MODEL))
    assert lean_config(settings) is not None
    for changed in ({"n_layer": "2"}, {"n_head": None}, {"norm_eps": True}):
        assert lean_config(settings | changed) is None
    for name in ("n_layer", "bias", "n_expert"):
        assert lean_config({key: value for key, value in settings.items() if key != name}) is None


CHECK = """
import sys
from litmoe.cli.main import main
code = main(["generate", "--checkpoint", sys.argv[1], "--prompt", "One day", "--max-new-tokens", "3",
             "--accelerator", "cpu"])
heavy = [name for name in ("litgpt", "lightning", "torchmetrics", "transformers", "datasets", "pandas")
         if name in sys.modules]
print(code, heavy, file=sys.stderr)
"""


def test_generate_imports_no_more_than_it_needs(trained: Path) -> None:
    command = [sys.executable, "-c", CHECK, str(trained)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.startswith("One day")
    assert result.stderr.splitlines()[-1] == "0 []"
