"""Transformers' name for a litmoe model: the ``config.json`` of a Mixtral, where Mixtral can express the model.

A checkpoint carries it because ``litgpt evaluate`` looks for it; an export to Hugging Face is built on it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from litgpt import Config

OURS = "litmoe"
"""Key of config.json for what Transformers has no field for, and does not need."""

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def why_not_mixtral(config: "Config") -> list[str]:
    """Every field that Mixtral cannot express, as ``field: value (what Mixtral has)``; empty where it can all."""
    if config.mlp_class_name != "LLaMAMoE":
        return [f"mlp_class_name: {config.mlp_class_name} (every layer of a Mixtral has experts: LLaMAMoE)"]
    faults = []

    def need(name: str, has: str, fits: Callable[[Any], bool]) -> None:
        value = getattr(config, name)
        if not fits(value):
            faults.append(f"{name}: {value} (Mixtral has {has})")

    need("norm_class_name", "RMSNorm", lambda v: v == "RMSNorm")
    need("rotary_percentage", "1.0: it rotates whole heads", lambda _: config.rope_n_elem == config.head_size)
    need("rope_condense_ratio", "1", lambda v: v == 1)
    need("rope_adjustments", "none", lambda v: v is None)
    need("rope_interleave", "halves, not pairs: false", lambda v: not v)
    need("rope_local_base_freq", "one base for all layers", lambda v: v is None)
    for name in ("bias", "attn_bias", "lm_head_bias"):
        need(name, "no biases", lambda v: not v)
    for name in ("parallel_residual", "shared_attention_norm"):
        need(name, "attention first, then experts: false", lambda v: not v)
    for name in ("post_attention_norm", "post_mlp_norm"):
        need(name, "norms before the layers only", lambda v: not v)
    for name in ("norm_1", "norm_2"):
        need(name, "both norms", bool)
    need("norm_qk", "no norm of queries and keys", lambda v: not v)
    for name in ("attention_logit_softcapping", "final_logit_softcapping"):
        need(name, "no soft cap", lambda v: v is None)
    need(
        "attention_scores_scalar",
        f"the head size {config.head_size}",
        lambda v: v in (None, config.head_size),
    )
    need("sliding_window_size", "full attention in our export", lambda v: v is None)
    need("latent_attention", "grouped-query attention", lambda v: v is None)
    need("n_expert_groups", "the softmax router, not the grouped sigmoid one", lambda v: not v)
    need("n_shared_expert", "routed experts only", lambda v: not v)
    need("first_k_dense_replace", "experts in every layer", lambda v: not v)
    need("routed_scaling_factor", "1", lambda v: v == 1)
    need("scale_embeddings", "embeddings as they are: false", lambda v: not v)
    need("name", 'no "Gemma" in the name, which changes LitGPT\'s RMSNorm', lambda v: "Gemma" not in v)
    return faults


def to_mixtral_config(config: "Config", dtype: torch.dtype, tied: bool) -> dict[str, Any]:
    """The ``config.json`` of a model that Mixtral can express.

    Args:
        config: the model.
        dtype: of the weights.
        tied: whether the token embedding is the language-model head too.
    """
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": config.padded_vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.moe_intermediate_size or config.intermediate_size,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_query_groups,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.block_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "sliding_window": None,
        "attention_dropout": 0.0,
        "num_local_experts": config.n_expert,
        "num_experts_per_tok": config.n_expert_per_token,
        "tie_word_embeddings": tied,
        "torch_dtype": _DTYPES.get(dtype, "float32"),
        OURS: {"name": config.name, "vocab_size": config.vocab_size},
    }


def hf_config(config: "Config", weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The ``config.json`` of a model with these weights; None where Mixtral cannot express it."""
    if why_not_mixtral(config):
        return None
    head, embedding = weights["lm_head.weight"], weights["transformer.wte.weight"]
    return to_mixtral_config(config, head.dtype, tied=head.data_ptr() == embedding.data_ptr())
