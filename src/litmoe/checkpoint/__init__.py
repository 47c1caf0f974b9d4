"""Checkpoint folders: whole or not at all, verified before use."""

from litmoe.checkpoint.hf_config import hf_config
from litmoe.checkpoint.layout import (
    FINAL,
    HF_CONFIG,
    MANIFEST,
    MODEL,
    MODEL_CONFIG,
    REMOVED,
    SETTINGS,
    TOKENIZER_FILES,
    TRAINER_STATE,
    Contents,
    Saved,
    UnreadableError,
    step_folder,
    unreadable,
)
from litmoe.checkpoint.reading import is_tied, load_model, load_trainer, newest, step_checkpoints, verify
from litmoe.checkpoint.retention import count_to_come, expendable
from litmoe.checkpoint.staging import HostMemory
from litmoe.checkpoint.writing import (
    TENSOR_OVERHEAD,
    clean,
    copy,
    free_bytes,
    remove,
    require_space,
    save,
    size_in_bytes,
)
from litmoe.optim.state_size import tensors_in

__all__ = [
    "FINAL",
    "HF_CONFIG",
    "MANIFEST",
    "MODEL",
    "MODEL_CONFIG",
    "REMOVED",
    "SETTINGS",
    "TENSOR_OVERHEAD",
    "TOKENIZER_FILES",
    "TRAINER_STATE",
    "Contents",
    "HostMemory",
    "Saved",
    "UnreadableError",
    "clean",
    "copy",
    "count_to_come",
    "expendable",
    "free_bytes",
    "hf_config",
    "is_tied",
    "load_model",
    "load_trainer",
    "newest",
    "remove",
    "require_space",
    "save",
    "size_in_bytes",
    "step_checkpoints",
    "step_folder",
    "tensors_in",
    "unreadable",
    "verify",
]
