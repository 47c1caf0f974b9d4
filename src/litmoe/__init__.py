"""litmoe: pretrain Mixture-of-Experts language models from scratch.

The jobs as functions, the same that the commands call; none of them reads ``sys.argv``::

    from litmoe import load_train_config, train

    result = train(load_train_config(preset="tiny", overrides=["--max-tokens", "100000"]))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from litmoe.version import __version__

if TYPE_CHECKING:
    from litmoe.config import EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig
    from litmoe.config.load import load_train_config
    from litmoe.data.prepare import PreparedData, prepare
    from litmoe.errors import LitMoEError
    from litmoe.inference.evaluate import Evaluation, evaluate
    from litmoe.inference.generate import generate
    from litmoe.inference.loading import LoadedModel, load_checkpoint
    from litmoe.training.loop import TrainResult, train

_HOME = {
    "EvaluateConfig": "config",
    "Evaluation": "inference.evaluate",
    "GenerateConfig": "config",
    "LitMoEError": "errors",
    "LoadedModel": "inference.loading",
    "PrepareConfig": "config",
    "PreparedData": "data.prepare",
    "TrainConfig": "config",
    "TrainResult": "training.loop",
    "evaluate": "inference.evaluate",
    "generate": "inference.generate",
    "load_checkpoint": "inference.loading",
    "load_train_config": "config.load",
    "prepare": "data.prepare",
    "train": "training.loop",
}

__all__ = [
    "EvaluateConfig",
    "Evaluation",
    "GenerateConfig",
    "LitMoEError",
    "LoadedModel",
    "PrepareConfig",
    "PreparedData",
    "TrainConfig",
    "TrainResult",
    "__version__",
    "evaluate",
    "generate",
    "load_checkpoint",
    "load_train_config",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a job when it is first asked for: torch takes seconds, and ``--help`` should not."""
    if name in _HOME:
        return getattr(import_module(f"litmoe.{_HOME[name]}"), name)
    raise AttributeError(f"module 'litmoe' has no attribute {name!r}")
