"""The base of litmoe's optimizers: a state of plain tensors that keeps its types."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class PlainStateOptimizer(torch.optim.Optimizer):
    """An optimizer whose state per parameter is a dictionary of plain tensors, each of its own type."""

    def new_state(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The state of a parameter before its first update; for one on the meta device, only shapes and types."""
        raise NotImplementedError

    def parameters(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """All parameters in their order, each with its group."""
        return ((group, parameter) for group in self.param_groups for parameter in group["params"])

    def state_shapes(self) -> list[Tensor]:
        """All tensors that the state will hold, on the meta device: without memory."""
        return [
            tensor
            for group, parameter in self.parameters()
            for tensor in self.new_state(torch.empty_like(parameter, device="meta"), group).values()
        ]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Like `torch.optim.Optimizer`'s, which however casts every tensor to the type of its parameter.

        Raises:
            ValueError: it is the state of other parameters, or of another optimizer.
        """
        groups = [
            # arguments that the saved groups lack keep their values; how to round is the run's choice
            {**own, **saved, "stochastic_rounding": own["stochastic_rounding"]}
            for own, saved in zip(self.param_groups, state_dict["param_groups"], strict=True)
        ]
        super().load_state_dict({"state": {}, "param_groups": groups})
        saved = state_dict["state"]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for number, (group, parameter) in zip(numbers, self.parameters(), strict=True):
            if number not in saved:
                continue
            shapes = self.new_state(torch.empty_like(parameter, device="meta"), group)
            if {k: v.shape for k, v in shapes.items()} != {k: v.shape for k, v in saved[number].items()}:
                raise ValueError(f"the state of parameter {number} is not that of {type(self).__name__}")
            self.state[parameter] = {
                # a tensor that is not on the meta device belongs on the CPU
                key: saved[number][key].to(
                    parameter.device if like.is_meta else like.device, like.dtype, copy=True
                )
                for key, like in shapes.items()
            }
