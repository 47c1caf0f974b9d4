"""Operations that an expert layer launches, and its waits for the device: litmoe's and LitGPT's.

    python benchmarks/launches.py [--experts 8] [--tokens 2048]

Counted on the CPU, in forward and backward, with a dispatch mode: every operation that computes something (not
views and empty memory) is one kernel or more on a GPU. The host waits where it needs a value or a size:
`.tolist()`, `.item()`, `nonzero`, `torch.where(mask)`, a mask as an index. First, both layers must give the
same output and gradients. Width 64: the counts do not depend on the width.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from litgpt import Config
from litgpt.model import LLaMAMoE
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from litmoe.model.moe.backends import BACKENDS, Fused
from litmoe.model.moe.dispatch import group_by_expert
from litmoe.model.moe.layer import MoE
from litmoe.model.moe.router import route

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique")


class Launches(TorchDispatchMode):
    """Counts operations by name, and those that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._lists = _Lists(self.waits)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        returns = func._schema.returns
        is_view = bool(returns) and all(
            r.alias_info is not None and not r.alias_info.is_write for r in returns
        )
        if not is_view and not name.startswith(("empty", "new_empty")) and name != "detach":
            self.operations[name] += 1
        if name.startswith(WAITING) or _has_mask(name, args) or _unknown_length(func, kwargs or {}):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> "Launches":
        self._lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._lists.__exit__(*error)


class _Lists(TorchFunctionMode):
    """Counts `.tolist()`, which dispatches nothing on the CPU."""

    def __init__(self, waits: Counter[str]) -> None:
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist:
            self.waits["tolist"] += 1
        return func(*args, **(kwargs or {}))


def _has_mask(name: str, args: Any) -> bool:
    indices = args[1] if name in ("index", "index_put", "index_put_") else []
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)


def _unknown_length(func: Any, kwargs: dict[str, Any]) -> bool:
    return func is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is None


def layers(n_expert: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """LitGPT's layer and litmoe's with each backend, all with the same weights."""
    torch.manual_seed(0)
    config = Config(
        n_embd=64,
        n_head=2,
        bias=False,
        mlp_class_name="LLaMAMoE",
        intermediate_size=64,
        n_expert=n_expert,
        n_expert_per_token=2,
    )
    ours, theirs = MoE(config), LLaMAMoE(config)
    theirs.load_state_dict(ours.state_dict())

    def by(fused: Fused) -> Callable[[Tensor], Tensor]:
        def layer(x_BTD: Tensor) -> Tensor:
            x_TD = x_BTD.flatten(0, 1)
            routing = route(x_TD, ours.gate, config)
            dispatch = group_by_expert(routing.ids_TK, routing.rows_E)
            experts = ours.experts
            stacks = experts.w13_EID, experts.w2_EDI
            y_TD = fused(x_TD, routing.weights_TK, *stacks, dispatch, False)
            return y_TD.view_as(x_BTD)

        return layer

    return {"LitGPT": theirs} | {name: by(backend.fused) for name, backend in BACKENDS.items()}


def counts(layer: Callable[[Tensor], Tensor], tokens: int) -> tuple[Launches, Launches, Tensor, Tensor]:
    """Counts of the forward and of the backward pass; and the output and the input's gradient."""
    x_BTD = torch.randn(1, tokens, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    forward, backward = Launches(), Launches()
    with forward:
        y_BTD = layer(x_BTD)
    loss = y_BTD.square().sum()
    with backward:
        loss.backward()
    assert x_BTD.grad is not None
    return forward, backward, y_BTD.detach(), x_BTD.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=2048)
    args = parser.parse_args()
    found = {name: counts(layer, args.tokens) for name, layer in layers(args.experts).items()}
    for name in ("loop", "grouped"):
        for ours, theirs in zip(found[name][2:], found["LitGPT"][2:], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    print(f"{args.experts} experts, top-2, {args.tokens} tokens; one layer, operations and waits")
    print("| layer | forward | waits | backward | waits | both | waits |")
    print("|---|---|---|---|---|---|---|")
    for name, (forward, backward, *_) in found.items():
        cells = [
            value for one in (forward, backward) for value in (one.operations.total(), one.waits.total())
        ]
        both = [cells[0] + cells[2], cells[1] + cells[3]]
        print(f"| {name} | " + " | ".join(map(str, [*cells, *both])) + " |")
    for name, (forward, backward, *_) in found.items():
        print(f"{name} waits at: {dict(forward.waits + backward.waits) or 'nothing'}")


if __name__ == "__main__":
    main()
