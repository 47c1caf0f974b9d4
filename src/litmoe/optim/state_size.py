"""The size of an optimizer's state before its first step."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from litmoe.optim.base import PlainStateOptimizer
from litmoe.optim.offload import HostOptimizer


def state_shapes(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All tensors that the optimizer's state will hold after a step, on the meta device: without memory.

    If the step reads tensor values (Adafactor), assume Adam's two tensors per parameter, an upper bound for common
    optimizers.
    """
    if isinstance(optimizer, HostOptimizer):
        return [*state_shapes(optimizer.inner), *optimizer.masters_shapes()]
    if isinstance(optimizer, PlainStateOptimizer):
        return optimizer.state_shapes()
    probe = copy.copy(optimizer)
    probe.state = defaultdict(dict)
    probe.param_groups = []
    for group in optimizer.param_groups:
        parameters = [torch.empty_like(parameter, device="meta") for parameter in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        plain: dict[str, Any] = {name: False for name in ("fused", "foreach", "capturable") if name in group}
        probe.param_groups.append({**group, "params": parameters, **plain})
    try:
        probe.step()
    except Exception:
        return [tensor for group in probe.param_groups for tensor in group["params"]] * 2
    return list(tensors_in(dict(probe.state)))


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples, in their order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors_in(item)
