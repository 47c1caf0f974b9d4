"""Models that cannot be built, refused in one line that names the setting: LitGPT would assert, or fail later."""

from dataclasses import replace

import torch
from litgpt import Config

from litmoe.errors import ConfigError
from litmoe.messages import one_line
from litmoe.model.gpt import GPT, attend
from litmoe.model.moe.layer import MoE

POSITIVE = (
    "block_size",
    "n_layer",
    "n_embd",
    "n_head",
    "vocab_size",
    "padding_multiple",
    "padded_vocab_size",
    "head_size",
    "n_query_groups",
    "intermediate_size",
    "moe_intermediate_size",
    "attention_scores_scalar",
    "sliding_window_size",
    "attention_logit_softcapping",
    "final_logit_softcapping",
    "rope_base",
    "rope_condense_ratio",
    "rope_local_base_freq",
    "n_topk_groups",
    "n_topk_scores_per_group",
    "routed_scaling_factor",
)
NOT_NEGATIVE = ("norm_eps", "n_expert", "n_expert_per_token", "n_shared_expert", "first_k_dense_replace")
MOE_ONLY = (
    "n_expert",
    "n_expert_per_token",
    "n_shared_expert",
    "n_expert_groups",
    "n_topk_groups",
    "n_topk_scores_per_group",
    "first_k_dense_replace",
)
"""Fields that only ``mlp_class_name: LLaMAMoE`` reads."""
GROUPS_ONLY = ("n_topk_groups", "n_topk_scores_per_group")
LATENT = ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")


def check_fields(config: Config) -> None:
    """Refuse what LitGPT asserts about the fields of a configuration, and what it silently ignores.

    Args:
        config: its fields as they were written; none has been derived from others.

    Raises:
        ConfigError: what is wrong, by the names of the fields.
    """
    for name in POSITIVE:
        value = getattr(config, name)
        if value is not None and not value > 0:  # so that not a number is refused too
            raise ConfigError(f"{name} must be greater than 0, got {value}")
    for name in NOT_NEGATIVE:
        value = getattr(config, name)
        if value is not None and not value >= 0:
            raise ConfigError(f"{name} must not be negative, got {value}")
    if not 0 < config.rotary_percentage <= 1:
        raise ConfigError(f"rotary_percentage must be above 0 and at most 1, got {config.rotary_percentage}")
    _check_attention(config)
    if config.mlp_class_name == "LLaMAMoE":
        _check_experts(config)
        return
    default = Config()
    for name in MOE_ONLY:
        if getattr(config, name) != getattr(default, name):
            raise ConfigError(
                f"{name} has no effect with mlp_class_name {config.mlp_class_name}: set mlp_class_name: LLaMAMoE, "
                "or remove it"
            )
    if config.mlp_class_name == "LLaMAMLP" and config.intermediate_size is None:
        raise ConfigError("mlp_class_name LLaMAMLP needs intermediate_size")


def check_layer(config: Config) -> None:
    """Refuse a model of which no layer can be made, or none attend, by making one that has no memory.

    Raises:
        ConfigError: what LitGPT or torch says of it.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            gpt = GPT(replace(config, n_layer=1, block_size=2, vocab_size=1, padded_vocab_size=1))
            rope = slice(None) if config.rope_indices is None else config.rope_indices[0]
            cos, sin = gpt.cos[None, ..., rope], gpt.sin[None, ..., rope]
            block, x_BTD = gpt.transformer.h[0], torch.empty(1, 2, config.n_embd)
            _, x_BTD = attend(block, x_BTD, cos, sin, None, None, None)
            if not isinstance(block.mlp, MoE):
                block.mlp(x_BTD)
    except ConfigError:
        raise
    except Exception as error:  # whatever a foreign constructor or an operator raises
        raise ConfigError(f"impossible model: {one_line(error) or 'sizes do not divide'}") from error


def _check_attention(config: Config) -> None:
    """What LitGPT asserts of heads, norms and positions, or fails at in the first forward."""
    if config.head_size is None and config.n_embd % config.n_head:
        raise ConfigError(
            f"impossible model: n_embd {config.n_embd} is not a multiple of n_head {config.n_head}: change one of "
            "them, or set head_size"
        )
    if config.n_query_groups is not None and config.n_head % config.n_query_groups:
        raise ConfigError(
            f"impossible model: n_head {config.n_head} is not a multiple of n_query_groups {config.n_query_groups}"
        )
    if config.latent_attention is not None:
        missing = [name for name in LATENT if not config.latent_attention.get(name)]
        if missing:
            raise ConfigError(f"latent_attention needs {', '.join(missing)}, each greater than 0")
        if config.n_query_groups not in (None, config.n_head):
            raise ConfigError(
                f"latent_attention needs n_query_groups equal to n_head {config.n_head}, got "
                f"{config.n_query_groups}"
            )
    if config.shared_attention_norm and not config.parallel_residual:
        raise ConfigError("shared_attention_norm: true needs parallel_residual: true")
    if config.rope_indices is not None and config.rope_local_base_freq is None:
        raise ConfigError(
            "rope_indices has no effect without rope_local_base_freq: set it, or remove rope_indices"
        )
    if config.sliding_window_indices is not None and config.sliding_window_size is None:
        raise ConfigError(
            "sliding_window_indices has no effect without sliding_window_size: set it, or remove them"
        )


def _check_experts(config: Config) -> None:
    """What LitGPT asserts of experts and groups of them, or what its choice among them cannot do."""
    n_expert, per_token, groups = config.n_expert, config.n_expert_per_token, config.n_expert_groups
    if n_expert == 0:
        raise ConfigError(f"LLaMAMoE needs n_expert greater than 0, got {n_expert}")
    if not 0 < per_token <= n_expert:
        raise ConfigError(f"n_expert_per_token must be from 1 to n_expert {n_expert}, got {per_token}")
    if config.bias:
        raise ConfigError(
            "bias: true is not possible with LLaMAMoE, whose experts have no biases: set bias: false"
        )
    if config.n_shared_expert and not config.moe_intermediate_size:
        raise ConfigError("n_shared_expert needs moe_intermediate_size")
    if (config.first_k_dense_replace or 0) >= config.n_layer:
        raise ConfigError(
            f"first_k_dense_replace {config.first_k_dense_replace} leaves no layer of n_layer {config.n_layer} "
            "to the experts: lower it, or set mlp_class_name: LLaMAMLP"
        )
    if groups is None:
        for name in GROUPS_ONLY:
            if getattr(config, name) is not None:
                raise ConfigError(f"{name} has no effect without n_expert_groups: set it, or remove {name}")
        return
    if groups < 2 or n_expert % groups:
        raise ConfigError(f"n_expert_groups must be 2 or more and divide n_expert {n_expert}, got {groups}")
    size = n_expert // groups
    for name, most, what in (
        ("n_topk_groups", groups, "n_expert_groups"),
        ("n_topk_scores_per_group", size, "the experts of a group"),
    ):
        value = getattr(config, name)
        if value is None or value > most:
            raise ConfigError(f"n_expert_groups needs {name} from 1 to {what} {most}, got {value}")
    if per_token > config.n_topk_groups * size:
        raise ConfigError(
            f"n_expert_per_token {per_token} is more than the {config.n_topk_groups * size} experts of "
            f"n_topk_groups {config.n_topk_groups}: lower it, or raise n_topk_groups"
        )
