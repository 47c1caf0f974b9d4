"""Which models :class:`~litmoe.inference.lean_decoder.LeanDecoder` knows, told from ``model_config.yaml``
without LitGPT.

They are those that most checkpoints of litmoe's hold: RMSNorm, rotary attention, SwiGLU, experts chosen by
softmax, no biases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints


@dataclass(frozen=True)
class LeanConfig:
    """The sizes of such a model, by the names of LitGPT's ``Config``."""

    block_size: int
    n_layer: int
    n_embd: int
    n_head: int
    n_query_groups: int
    head_size: int
    padded_vocab_size: int
    rotary_percentage: float
    rope_base: int
    rope_condense_ratio: int
    norm_eps: float
    mlp_class_name: str
    intermediate_size: int
    moe_intermediate_size: int | None
    n_expert: int
    n_expert_per_token: int
    routed_scaling_factor: float

    @property
    def rope_n_elem(self) -> int:
        """Rotated features of each head."""
        return int(self.rotary_percentage * self.head_size)


FIXED: dict[str, tuple[Any, ...]] = {
    "norm_class_name": ("RMSNorm",),
    "mlp_class_name": ("LLaMAMLP", "LLaMAMoE"),
    "n_shared_expert": (None, 0),
    "n_expert_groups": (None, 0),
    "first_k_dense_replace": (None, 0),
    "norm_1": (True,),
    "norm_2": (True,),
    **dict.fromkeys(
        (
            "bias",
            "attn_bias",
            "lm_head_bias",
            "norm_qk",
            "post_attention_norm",
            "post_mlp_norm",
            "shared_attention_norm",
            "parallel_residual",
            "rope_interleave",
            "scale_embeddings",
        ),
        (False,),
    ),
    **dict.fromkeys(
        (
            "rope_adjustments",
            "rope_local_base_freq",
            "rope_indices",
            "sliding_window_size",
            "sliding_window_indices",
            "attention_scores_scalar",
            "attention_logit_softcapping",
            "final_logit_softcapping",
            "latent_attention",
        ),
        (None,),
    ),
}
"""The fields that decide what a layer computes, and the values for which it is what this module computes."""


def lean_config(settings: Mapping[str, Any]) -> LeanConfig | None:
    """The sizes of a model from the fields of its ``model_config.yaml``; None if it is not of this kind.

    A file of LitGPT's or litmoe's has every field, derived ones too; one with fewer is not taken.
    """
    for name, values in FIXED.items():
        if name not in settings or settings[name] not in values:
            return None
    sizes = {field.name: settings.get(field.name) for field in fields(LeanConfig)}
    kinds = get_type_hints(LeanConfig)
    for name, value in sizes.items():
        if not (isinstance(value, kinds[name]) or (kinds[name] is float and type(value) is int)):
            return None
    config = LeanConfig(**sizes)  # type: ignore[arg-type]  # just checked
    is_known = config.rope_n_elem % 2 == 0 and config.n_head % config.n_query_groups == 0
    is_known = is_known and "Gemma" not in str(settings.get("name"))  # whose RMSNorm is another
    return config if is_known else None


def shapes_of(config: LeanConfig) -> dict[str, tuple[int, ...]]:
    """The weights of a model by LitGPT's names, and their shapes."""
    D, V, S = config.n_embd, config.padded_vocab_size, config.head_size
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (V, D),
        "transformer.wte.weight": (V, D),
        "transformer.ln_f.weight": (D,),
    }
    for layer in range(config.n_layer):
        prefix = f"transformer.h.{layer}."
        shapes |= {
            f"{prefix}norm_1.weight": (D,),
            f"{prefix}norm_2.weight": (D,),
            f"{prefix}attn.qkv.weight": ((config.n_head + 2 * config.n_query_groups) * S, D),
            f"{prefix}attn.proj.weight": (D, config.n_head * S),
        }
        mlps = {f"{prefix}mlp.": config.intermediate_size}
        if config.mlp_class_name == "LLaMAMoE":
            shapes[f"{prefix}mlp.gate.weight"] = (config.n_expert, D)
            width = config.moe_intermediate_size or config.intermediate_size
            mlps = {f"{prefix}mlp.experts.{expert}.": width for expert in range(config.n_expert)}
        for mlp, width in mlps.items():
            shapes |= {f"{mlp}fc_1.weight": (width, D), f"{mlp}fc_2.weight": (width, D)}
            shapes[f"{mlp}proj.weight"] = (D, width)
    return shapes
