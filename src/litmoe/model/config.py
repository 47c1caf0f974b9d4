"""The model of a run as a `litgpt.Config`: read, checked, and fitted to the way its experts are balanced."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from litgpt import Config

from litmoe.config.files import read_written
from litmoe.config.load import build, checked_settings
from litmoe.errors import ConfigError
from litmoe.messages import nearest, one_line
from litmoe.model.checks import check_fields, check_layer


@dataclass
class _Fields(Config):
    """The fields of a `litgpt.Config` as they were written: nothing derived from others, nothing asserted."""

    def __post_init__(self) -> None:
        pass


def load_model_config(source: Mapping[str, Any] | Path, where: str = "model_config") -> Config:
    """A model configuration from a YAML file or from its fields.

    Raises:
        ConfigError: unreadable, an unknown or ineffective field, a wrong type, or an impossible combination.
    """
    where = str(source) if isinstance(source, Path) else where
    given = read_written(source) if isinstance(source, Path) else source
    written = build(_Fields, checked_settings(given, Config, f"{where}: "))
    try:
        check_fields(written)
        config = Config(**{f.name: getattr(written, f.name) for f in fields(Config)})
        check_layer(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{where}: impossible model: {one_line(error) or 'sizes do not divide'}") from error
    return config


def named_model_config(name: str) -> Config:
    """One of LitGPT's models by its name.

    Raises:
        ConfigError: no such model.
    """
    from litgpt.config import name_to_config

    if name not in name_to_config:
        hint = nearest(name, name_to_config, otherwise="")
        raise ConfigError(f"model_name {name!r} is none of LitGPT's models{hint}")
    return load_model_config(name_to_config[name], f"model_name {name}")


def with_correction_bias(config: Config) -> Config:
    """The same model with LitGPT's sigmoid router, which has a correction bias to balance the load by.

    As many groups as experts, all of them chosen, restrict nothing: this is the router of loss-free balancing
    (arXiv 2408.15664), in fields that LitGPT reads.

    Raises:
        ConfigError: fewer than two experts, which LitGPT has no such router for.
    """
    if config.n_expert_groups:
        return config
    every = config.n_expert
    if every < 2:
        raise ConfigError(f"moe.balance: bias needs two experts or more, the model has n_expert {every}")
    return replace(
        config, n_expert_groups=every, n_topk_groups=every, n_topk_scores_per_group=1, norm_topk_prob=True
    )
