"""Our models and Transformers' Mixtral: which are the same, and under what names.

A `litgpt.Config` and the ``config.json`` of a Mixtral describe the same model where every field of the one can be
said in the other. The names of the weights are LitGPT's own map.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from litgpt import Config
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from litgpt.scripts.convert_lit_checkpoint import copy_weights_llama
from torch import Tensor

from litmoe import checkpoint
from litmoe.errors import LitMoEError
from litmoe.model.gpt import GPT

CONFIG = checkpoint.HF_CONFIG
OURS = "litmoe"
"""Key of config.json for what Transformers has no field for, and does not need."""

_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_local_experts",
    "max_position_embeddings",
    "vocab_size",
)
# What transformers.MixtralConfig assumes where config.json is silent.
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
}
_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def why_not_mixtral(config: Config) -> list[str]:
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


def refuse_other_than_mixtral(config: Config, where: str, format_name: str) -> None:
    """Raise where Mixtral cannot express a model.

    Raises:
        LitMoEError: names every field that stands in the way.
    """
    if faults := why_not_mixtral(config):
        raise LitMoEError(
            f"{where}: a model like this cannot be exported to {format_name}, which knows it as a Mixtral: "
            + "; ".join(faults)
        )


def to_mixtral_config(config: Config, dtype: torch.dtype, tied: bool) -> dict[str, Any]:
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


def mixtral_config_of(config: Config, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The ``config.json`` of a model with these weights; None where Mixtral cannot express it."""
    if why_not_mixtral(config):
        return None
    head, embedding = weights["lm_head.weight"], weights["transformer.wte.weight"]
    return to_mixtral_config(config, head.dtype, tied=head.data_ptr() == embedding.data_ptr())


def from_mixtral_config(values: Mapping[str, Any], where: str) -> Config:
    """The model that a Mixtral's ``config.json`` describes.

    Raises:
        LitMoEError: another architecture, a size that is none, or a choice that our model does not have.
    """
    if values.get("model_type") != "mixtral":
        raise LitMoEError(
            f"{where}: model_type is {values.get('model_type')!r}; only models of the Mixtral architecture "
            "can be imported"
        )
    known = {**_DEFAULTS, **{key: value for key, value in values.items() if value is not None}}
    for name in _SIZES:
        if not isinstance(known[name], int) or isinstance(known[name], bool) or known[name] <= 0:
            raise LitMoEError(f"{where}: {name} must be a number greater than 0, got {known[name]!r}")
    rope = known.get("rope_parameters") or known.get("rope_scaling") or {}
    rope_theta = known.get("rope_theta", rope.get("rope_theta", 1e6))
    window, length = known.get("sliding_window"), known["max_position_embeddings"]
    for name, value, fits in (
        ("hidden_act", known["hidden_act"], known["hidden_act"] == "silu"),
        ("rope_type", rope.get("rope_type"), rope.get("rope_type", rope.get("type", "default")) == "default"),
        ("rope_theta", rope_theta, isinstance(rope_theta, int | float) and rope_theta == int(rope_theta)),
        ("rms_norm_eps", known["rms_norm_eps"], isinstance(known["rms_norm_eps"], float)),
        ("sliding_window", window, window is None or window >= length),
        ("quantization_config", "set", "quantization_config" not in known),
    ):
        if not fits:
            raise LitMoEError(f"{where}: {name} {value!r} is not what a litmoe model can have")
    ours: Any = known.get(OURS)
    ours = ours if isinstance(ours, dict) else {}
    try:
        return Config(
            name=str(ours.get("name", "Mixtral")),
            block_size=length,
            vocab_size=int(ours.get("vocab_size", known["vocab_size"])),
            padded_vocab_size=known["vocab_size"],
            n_layer=known["num_hidden_layers"],
            n_embd=known["hidden_size"],
            n_head=known["num_attention_heads"],
            head_size=known.get("head_dim"),
            n_query_groups=known["num_key_value_heads"],
            mlp_class_name="LLaMAMoE",
            n_expert=known["num_local_experts"],
            n_expert_per_token=known["num_experts_per_tok"],
            intermediate_size=known["intermediate_size"],
            moe_intermediate_size=known["intermediate_size"],
            norm_class_name="RMSNorm",
            norm_eps=known["rms_norm_eps"],
            bias=False,
            parallel_residual=False,
            rope_base=int(rope_theta),
            rotary_percentage=1.0,
        )
    except (AssertionError, ValueError, TypeError) as error:
        raise LitMoEError(f"{where}: the sizes do not fit together: {error}") from error


def to_mixtral_weights(config: Config, weights: Mapping[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The weights under Mixtral's names, as views of ours; without the head where it is the embedding."""
    renamed: dict[str, Tensor] = {}
    copy_weights_llama(config, renamed, dict(weights), untie_weights=tied)
    return renamed


def from_mixtral_weights(
    config: Config, weights: Mapping[str, Tensor], tied: bool, where: str
) -> dict[str, Tensor]:
    """The weights under LitGPT's names, in the order of our state dict.

    Raises:
        LitMoEError: a weight is missing, has another shape, or is none of such a model's.
    """
    with torch.device("meta"):
        ours = GPT(config).state_dict()
    expected = to_mixtral_weights(config, ours, tied)
    given = {name: tensor for name, tensor in weights.items() if not name.endswith("rotary_emb.inv_freq")}
    if tied:
        given.pop("lm_head.weight", None)
    for name, tensor in expected.items():
        if name not in given:
            raise LitMoEError(f"{where}: the weight {name} is missing")
        if given[name].shape != tensor.shape:
            shape, wanted = tuple(given[name].shape), tuple(tensor.shape)
            raise LitMoEError(f"{where}: the weight {name} has shape {shape}, {CONFIG} says {wanted}")
    if extra := sorted(given.keys() - expected.keys()):
        raise LitMoEError(f"{where}: {extra[0]} is no weight of a Mixtral ({len(extra)} such)")
    renamed: dict[str, Tensor] = {}
    copy_weights_hf_llama(config, {}, renamed, given)
    return {name: renamed[name] for name in ours}
