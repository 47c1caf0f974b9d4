"""The model of a run as a `litgpt.Config`: read, checked, and fitted to the way its experts are balanced."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from litgpt import Config

from litmoe.config.files import read_written
from litmoe.config.load import build, checked_settings
from litmoe.errors import LitMoEError
from litmoe.messages import nearest, one_line

_MOE_FIELDS = (
    "n_expert",
    "n_expert_per_token",
    "n_shared_expert",
    "n_expert_groups",
    "first_k_dense_replace",
)


def load_model_config(source: Mapping[str, Any] | Path) -> Config:
    """A model configuration from a YAML file or from its fields.

    Raises:
        LitMoEError: unreadable, an unknown or ineffective field, a wrong type, or an impossible combination.
    """
    where = str(source) if isinstance(source, Path) else "model_config"
    given = read_written(source) if isinstance(source, Path) else source
    settings = checked_settings(given, Config, f"{where}: ")
    try:
        config = build(Config, settings)
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        raise LitMoEError(f"{where}: impossible model: {one_line(error) or 'sizes do not divide'}") from error
    _check(config, where)
    return config


def named_model_config(name: str) -> Config:
    """One of LitGPT's models by its name.

    Raises:
        LitMoEError: no such model.
    """
    from litgpt.config import name_to_config

    if name not in name_to_config:
        raise LitMoEError(f"model_name {name!r} is none of LitGPT's models{nearest(name, name_to_config)}")
    config = Config.from_name(name)
    assert config is not None
    return config


def with_correction_bias(config: Config) -> Config:
    """The same model with LitGPT's sigmoid router, which has a correction bias to balance the load by.

    As many groups as experts, all of them chosen, restrict nothing: this is the router of loss-free balancing
    (arXiv 2408.15664), in fields that LitGPT reads.
    """
    if config.n_expert_groups:
        return config
    every = config.n_expert
    return replace(
        config, n_expert_groups=every, n_topk_groups=every, n_topk_scores_per_group=1, norm_topk_prob=True
    )


def _check(config: Config, where: str) -> None:
    sizes = ["block_size", "n_layer", "n_embd", "n_head", "vocab_size", "padded_vocab_size", "head_size"]
    for name in (*sizes, "n_query_groups", "intermediate_size", "moe_intermediate_size"):
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise LitMoEError(f"{where}: {name} must be greater than 0, got {value}")
    if config.mlp_class_name != "LLaMAMoE":
        default = Config()
        for name in _MOE_FIELDS:
            if getattr(config, name) != getattr(default, name):
                raise LitMoEError(
                    f"{where}: {name} has no effect with mlp_class_name {config.mlp_class_name}: "
                    "set mlp_class_name: LLaMAMoE, or remove it"
                )
        return
    if config.n_expert <= 0:
        raise LitMoEError(f"{where}: LLaMAMoE needs n_expert greater than 0, got {config.n_expert}")
    if not 0 < config.n_expert_per_token <= config.n_expert:
        raise LitMoEError(
            f"{where}: n_expert_per_token must be from 1 to n_expert {config.n_expert}, "
            f"got {config.n_expert_per_token}"
        )
    if config.n_shared_expert and not config.moe_intermediate_size:
        raise LitMoEError(f"{where}: n_shared_expert needs moe_intermediate_size")
