"""The types in which matrices are multiplied."""

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that autocast would cast `x` to before a product; its own outside autocast, and for fp64."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def product_dtype(precision: str) -> torch.dtype:
    """The type that matrices are multiplied in under one of Fabric's precisions (``bf16-mixed`` and so on)."""
    return {"3": torch.float32, "b": torch.bfloat16, "1": torch.float16}[precision[0]]
