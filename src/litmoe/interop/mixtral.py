"""Our models and Transformers' Mixtral: which are the same, and under what names.

A `litgpt.Config` and the ``config.json`` of a Mixtral describe the same model where every field of the one can be
said in the other. The names of the weights are LitGPT's own map.
"""

from collections.abc import Mapping
from typing import Any

import torch
from litgpt import Config
from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
from litgpt.scripts.convert_lit_checkpoint import copy_weights_llama
from torch import Tensor

from litmoe import checkpoint
from litmoe.checkpoint.hf_config import OURS, why_not_mixtral
from litmoe.errors import LitMoEError
from litmoe.model.gpt import GPT

CONFIG = checkpoint.HF_CONFIG
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
