"""A run on fake tensors: they have shapes, types and storages of a size, but no bytes, and nothing is computed."""

from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import HalfPrecision, MixedPrecision, Precision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class ExpertLoad(TorchDispatchMode):
    """Answers a step that asks fake tensors for values.

    The integers that it asks for are the rows of each expert (int64) and where they end (int32). All else are
    figures to be shown.
    """

    def __init__(self, tokens: int, per_token: int, n_expert: int, fullest: float) -> None:
        """The first expert has `fullest` times the mean, or all tokens; the others share the rest.

        Args:
            tokens: of a micro-batch.
            per_token: experts of each.
            n_expert: experts of a layer; 0: it is dense.
            fullest: tokens of the fullest expert over the mean.
        """
        super().__init__()
        assignments = tokens * per_token
        first = min(tokens, round(fullest * assignments / max(1, n_expert)))
        rest = [(assignments - first) * e // max(1, n_expert - 1) for e in range(n_expert)]
        self.counts = [first, *(after - before for before, after in pairwise(rest))]
        self.bounds = list(accumulate(self.counts))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].constant is None:
            values = {torch.int32: self.bounds, torch.int64: self.counts}.get(args[0].dtype)
            return 1.0 if values is None else values[args[0].storage_offset()]
        return func(*args, **(kwargs or {}))


class FakeFabric(Fabric):
    """Fabric on one CPU for fake tensors, which `nn.Module.to` refuses: they are made where they stay."""

    def __init__(self, precision: Any) -> None:
        kinds = {"32-true": Precision, "bf16-true": partial(_FakeHalf, precision)}
        plugin = kinds.get(precision, partial(MixedPrecision, precision, "cpu"))()
        super().__init__(accelerator="cpu", devices=1, plugins=[plugin])

    def setup(self, module: nn.Module, *optimizers: Any, **_: Any) -> Any:
        return super().setup(module, *optimizers, move_to_device=False)


class _FakeHalf(HalfPrecision):
    """Parameters are made in bf16; only the buffers of their modules have to become it."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        for owner in module.modules():
            for name, buffer in owner.named_buffers(recurse=False):
                setattr(owner, name, self.convert_input(buffer))
        return module
