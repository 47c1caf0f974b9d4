"""litmoe's models and Transformers' Mixtral: which are the same, and under what names.

A `litgpt.Config` and the ``config.json`` of a Mixtral describe the same model if every field of the one can be
expressed in the other. The names of the weights are LitGPT's own map.
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
from litmoe.errors import CheckpointError, ConfigError
from litmoe.interop.training_facts import section
from litmoe.messages import one_line
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
# transformers.MixtralConfig's defaults, for what config.json leaves out
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
    """Raise if Mixtral cannot express a model.

    Raises:
        ConfigError: names every field that stands in the way.
    """
    if faults := why_not_mixtral(config):
        raise ConfigError(
            f"{where}: a model like this cannot be exported to {format_name}, which knows it as a Mixtral: "
            + "; ".join(faults)
        )


def balance_settings(settings: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """What ``config.json`` says of the balance loss that a model was trained with; empty if nobody knows.

    Transformers adds ``router_aux_loss_coef * load_balancing_loss_func(...)`` to the loss. That function sums over
    the K experts of a token where the Switch loss takes their mean: it is K times the Switch loss, and its
    coefficient a K-th of ``moe.switch_coefficient``.

    ``output_router_logits`` switches that loss on. It is off, as in published Mixtrals: with it on, ``generate``
    fails at its second token (seen with Transformers 5.3), where the router's logits of one token meet the
    attention mask of all. The model card says how to train on.
    """
    moe = section(dict(settings), "moe")
    if "balance" not in moe:
        return {}
    coefficient = moe.get("switch_coefficient", 0.0) if moe["balance"] == "switch" else 0.0
    return {
        "output_router_logits": False,
        "router_aux_loss_coef": coefficient / config.n_expert_per_token,
    }


def from_mixtral_config(values: Mapping[str, Any], where: str) -> Config:
    """The model that a Mixtral's ``config.json`` describes.

    Raises:
        CheckpointError: another architecture, a size that is none, or a choice that a litmoe model does not have.
    """
    if values.get("model_type") != "mixtral":
        raise CheckpointError(
            f"{where}: model_type is {values.get('model_type')!r}; only models of the Mixtral architecture "
            "can be imported"
        )
    known = {**_DEFAULTS, **{key: value for key, value in values.items() if value is not None}}
    known.setdefault("head_dim", None)
    for name in _SIZES:
        if not _is_size(known[name]):
            raise CheckpointError(f"{where}: {name} must be a number greater than 0, got {known[name]!r}")

    # choices that Mixtral's code offers and LitGPT's model does not
    rope = known.get("rope_parameters") or known.get("rope_scaling") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    rope_theta: Any = known.get("rope_theta", rope.get("rope_theta", 1e6))
    window, length = known.get("sliding_window"), known["max_position_embeddings"]
    tied = known.get("tie_word_embeddings", False)
    for name, value, fits in (
        ("hidden_act", known["hidden_act"], known["hidden_act"] == "silu"),
        ("rope_type", rope_type, rope_type == "default"),
        ("rope_theta", rope_theta, isinstance(rope_theta, int | float) and 0 < rope_theta < 2**63),
        ("rope_theta", rope_theta, isinstance(rope_theta, int | float) and rope_theta % 1 == 0),
        ("rms_norm_eps", known["rms_norm_eps"], isinstance(known["rms_norm_eps"], float)),
        ("sliding_window", window, window is None or (_is_size(window) and window >= length)),
        ("head_dim", known["head_dim"], known["head_dim"] is None or _is_size(known["head_dim"])),
        ("tie_word_embeddings", tied, isinstance(tied, bool)),
        ("quantization_config", "set", "quantization_config" not in known),
    ):
        if not fits:
            raise CheckpointError(f"{where}: {name} {value!r} is not what a litmoe model can have")

    ours: Any = known.get(OURS)
    ours = ours if isinstance(ours, dict) else {}
    vocab_size = ours.get("vocab_size")
    try:
        return Config(
            name=str(ours.get("name", "Mixtral")),
            block_size=length,
            vocab_size=vocab_size if _is_size(vocab_size) else known["vocab_size"],
            padded_vocab_size=known["vocab_size"],
            n_layer=known["num_hidden_layers"],
            n_embd=known["hidden_size"],
            n_head=known["num_attention_heads"],
            head_size=known["head_dim"],
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
        reason = one_line(error) or "they do not divide"
        raise CheckpointError(f"{where}: the sizes do not fit together: {reason}") from error


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def to_mixtral_weights(config: Config, weights: Mapping[str, Tensor], tied: bool) -> dict[str, Tensor]:
    """The weights under Mixtral's names, as views; without the head if it is the embedding."""
    renamed: dict[str, Tensor] = {}
    copy_weights_llama(config, renamed, dict(weights), untie_weights=tied)
    return renamed


def from_mixtral_weights(
    config: Config, weights: Mapping[str, Tensor], tied: bool, where: str
) -> dict[str, Tensor]:
    """The weights under LitGPT's names, in the order of a litmoe model's state dict.

    Raises:
        CheckpointError: a weight is missing, has another shape, or is none of such a model's.
    """
    with torch.device("meta"):
        ours = GPT(config).state_dict()
    expected = to_mixtral_weights(config, ours, tied)
    given = {name: tensor for name, tensor in weights.items() if not name.endswith("rotary_emb.inv_freq")}
    if tied:
        given.pop("lm_head.weight", None)
    for name, tensor in expected.items():
        if name not in given:
            raise CheckpointError(f"{where}: the weight {name} is missing")
        if given[name].shape != tensor.shape:
            shape, wanted = tuple(given[name].shape), tuple(tensor.shape)
            raise CheckpointError(f"{where}: the weight {name} has shape {shape}, {CONFIG} says {wanted}")
    if extra := sorted(given.keys() - expected.keys()):
        raise CheckpointError(f"{where}: {extra[0]} is no weight of a Mixtral ({len(extra)} such)")
    renamed: dict[str, Tensor] = {}
    copy_weights_hf_llama(config, {}, renamed, given)
    return {name: renamed[name] for name in ours}
