"""Analytic counts against models on the meta device."""

import subprocess
import sys

import pytest
import torch
from litgpt import Config
from litgpt.model import CausalSelfAttention

from litmoe.model.flops import flops_per_token, num_active_matmul_params, num_active_params, num_params
from litmoe.model.gpt import GPT

MOE_200M = {
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_query_groups": 4,
    "n_expert": 8,
    "n_expert_per_token": 2,
    "moe_intermediate_size": 2048,
    "intermediate_size": 2048,
    "vocab_size": 50257,
    "padded_vocab_size": 50257,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
    "mlp_class_name": "LLaMAMoE",
    "block_size": 2048,
}
DENSE = {"n_expert": 0, "n_expert_per_token": 0, "n_layer": 2}
LATENT = {
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
VARIANTS = {
    "MoE-200M": {},
    "shared, first layers dense": {
        "n_shared_expert": 2,
        "first_k_dense_replace": 3,
        "moe_intermediate_size": 100,
        "post_mlp_norm": True,
    },
    "latent attention": {"latent_attention": LATENT, "n_query_groups": 12, "attn_bias": True},
    "llama": DENSE | {"mlp_class_name": "LLaMAMLP", "norm_qk": True, "post_attention_norm": True},
    "olmo2": DENSE
    | {"mlp_class_name": "LLaMAMLP", "norm_qk": True, "norm_qk_type": "olmo2", "norm_1": False},
    "olmo": DENSE | {"mlp_class_name": "LLaMAMLP", "norm_class_name": "LayerNorm", "name": "OLMo-1B"},
    "pythia": DENSE
    | {
        "mlp_class_name": "GptNeoxMLP",
        "norm_class_name": "LayerNorm",
        "bias": True,
        "lm_head_bias": True,
        "parallel_residual": True,
        "shared_attention_norm": True,
    },
    "latent attention with biases": DENSE
    | {"mlp_class_name": "GemmaMLP", "latent_attention": LATENT, "n_query_groups": 12, "bias": True},
    "attention bias": DENSE | {"mlp_class_name": "LLaMAMLP", "attn_bias": True, "head_size": 32},
}


def on_meta(config: Config) -> GPT:
    with torch.device("meta"):
        return GPT(config)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_counts_are_those_of_the_model(changes):
    config = Config(**MOE_200M | changes)
    model = on_meta(config)
    sizes = {name: value.numel() for name, value in model.state_dict().items() if "correction" not in name}
    assert num_params(config) == sum(sizes.values()) == sum(p.numel() for p in model.parameters())
    active = sum(
        size
        for name, size in sizes.items()
        if ".experts." not in name
        or int(name.split(".experts.")[1].split(".")[0]) < config.n_expert_per_token
    )
    assert num_active_params(config) == active
    vectors = sum(value.numel() for value in model.parameters() if value.dim() == 1)
    assert num_active_matmul_params(config) == active - vectors - sizes["transformer.wte.weight"]


def test_figures_of_moe_200m():
    config = Config(**MOE_200M)
    assert num_params(config) == 549_146_880
    assert num_active_params(config) == pytest.approx(209.4e6, rel=1e-3)
    assert num_active_matmul_params(config) == pytest.approx(170.8e6, rel=1e-3)
    assert flops_per_token(config, 2048) == pytest.approx(1.25e9, rel=2e-3)


@pytest.mark.parametrize("changes", [{}, {"latent_attention": LATENT, "n_query_groups": 12}])
def test_attention_flops_are_those_of_two_full_products(changes):
    config = Config(**MOE_200M | changes)
    attention = on_meta(config).transformer.h[0].attn
    if isinstance(attention, CausalSelfAttention):
        query_key = value = config.head_size
    else:
        query_key, value = config.qk_head_dim, config.v_head_dim
    T = 512
    scores, mix = 2 * T * query_key, 2 * T * value  # per token and head, forward
    expected = 3 * config.n_layer * config.n_head * (scores + mix)
    assert flops_per_token(config, T) - flops_per_token(config, 0) == expected
    assert flops_per_token(config, 0) == 6 * num_active_matmul_params(config)


def test_importing_the_counts_does_not_import_torch():
    code = "import sys, litmoe.model.flops; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
