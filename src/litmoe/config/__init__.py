"""Settings: every one typed, read from YAML and options, checked, and made into what they name.

Nothing here imports torch, so that ``--help`` and a refused setting answer at once.
"""

from litmoe.config.jobs import EvaluateConfig, GenerateConfig, PrepareConfig
from litmoe.config.schema import (
    CheckpointArgs,
    ClassSpec,
    EvalArgs,
    FaultArgs,
    LogArgs,
    MemoryArgs,
    MoEArgs,
    PrepareOnDemand,
    SampleArgs,
    ScheduleArgs,
    TrainArgs,
    TrainConfig,
    as_plain,
)

__all__ = [
    "CheckpointArgs",
    "ClassSpec",
    "EvalArgs",
    "EvaluateConfig",
    "FaultArgs",
    "GenerateConfig",
    "LogArgs",
    "MemoryArgs",
    "MoEArgs",
    "PrepareConfig",
    "PrepareOnDemand",
    "SampleArgs",
    "ScheduleArgs",
    "TrainArgs",
    "TrainConfig",
    "as_plain",
]
