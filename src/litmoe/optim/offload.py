"""An optimizer in the host's memory: the device keeps weights and gradients only (ZeRO-Offload, 2101.06840)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class HostOptimizer(torch.optim.Optimizer):
    """Any optimizer, with its state and its step in host memory.

    The host also holds the weights in fp32 and updates them there; the device gets them rounded to nearest in its
    own type. So bf16 weights need no stochastic rounding, and a checkpoint holds the fp32 weights too. Parameters
    are updated one after another, so the host holds one gradient at a time.
    """

    def __init__(
        self,
        params: list[dict[str, Any]],
        make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    ) -> None:
        """
        Args:
            params: groups of parameters on the device, each with a list of them.
            make: makes the optimizer of such groups, whose parameters are fp32 and on the host.
        """
        on_host = [
            {**group, "params": [torch.empty(p.shape, dtype=torch.float32) for p in group["params"]]}
            for group in params
        ]
        self.inner = make(on_host)
        super().__init__(params, self.inner.defaults)
        self._current: set[Tensor] = set()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient; returns what ``closure``, called before, does."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group, host_group in zip(self.param_groups, self.inner.param_groups, strict=True):
            host_group.update({key: value for key, value in group.items() if key != "params"})
        for parameter, host in self._pairs():
            if parameter.grad is None:
                continue
            if parameter not in self._current:  # the first update, or after other weights were loaded
                host.copy_(parameter)
                self._current.add(parameter)
            host.grad = parameter.grad.to("cpu", torch.float32)
            self.inner.step()
            host.grad = None
            parameter.copy_(host)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state, and as ``master`` the fp32 weights of parameters that the device rounds."""
        return {**self.inner.state_dict(), "master": self._masters()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, also one of the same optimizer on the device, whose weights then become the fp32 ones.

        Call it once the device has its weights.
        """
        self.inner.load_state_dict({key: value for key, value in state_dict.items() if key != "master"})
        groups = zip(self.param_groups, self.inner.param_groups, strict=True)
        for group, host_group in groups:
            group.update({key: value for key, value in host_group.items() if key != "params"})
        self._current.clear()
        masters = state_dict.get("master", {})
        for number, (parameter, host) in enumerate(self._pairs()):
            if number in masters:
                host.copy_(masters[number])
                self._current.add(parameter)

    def masters_shapes(self) -> list[Tensor]:
        """The fp32 weights in a state, without memory."""
        return [torch.empty_like(host, device="meta") for p, host in self._pairs() if p.dtype != host.dtype]

    def _masters(self) -> dict[int, Tensor]:
        return {
            number: host
            for number, (parameter, host) in enumerate(self._pairs())
            if parameter in self._current and parameter.dtype != host.dtype
        }

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        groups = zip(self.param_groups, self.inner.param_groups, strict=True)
        return [
            pair
            for group, host_group in groups
            for pair in zip(group["params"], host_group["params"], strict=True)
        ]
