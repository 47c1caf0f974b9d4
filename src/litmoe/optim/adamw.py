"""AdamW (arXiv 1711.05101) for bf16 parameters, with moments in their parameter's type, 8 bits or 4 bits.

All arithmetic is in fp32, on one piece of a parameter at a time, so that fp32 copies take a few megabytes and not
several times the largest parameter. It is plain PyTorch: nothing is compiled, so it needs no compiler.

Shape suffixes: N numbers of one piece.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from litmoe.optim.base import PlainStateOptimizer
from litmoe.optim.quantize import Code
from litmoe.optim.rounding import Noise, write

PIECES = {"cpu": 1 << 18}
"""Numbers updated together, by device type: on a CPU as many as its cache holds. A multiple of every block."""
PIECE = 1 << 20
"""The same on other devices."""
SMALLEST = 4096
"""Smaller parameters (norms) keep fp32 moments, which cost nothing there."""

MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""torch's names of the moments, and whether they hold negative numbers."""


class AdamW(PlainStateOptimizer):
    """AdamW whose bf16 weights and moments are rounded stochastically.

    Moments have the type of their parameter. In fp32 it equals `torch.optim.AdamW` to the bit, and states move
    between the two in any type. 8 bytes per bf16 parameter with weight and gradient, as torch's, which however
    rounds to nearest: with a beta2 of 0.999 its second moment in bf16 stops moving.
    """

    bits: ClassVar[Literal[4, 8] | None] = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        stochastic_rounding: bool = True,
        seed: int = 0,
    ) -> None:
        """
        Args:
            params: parameters, or groups of them.
            lr: learning rate.
            betas: decay of the first and second moment, each from 0 to below 1.
            eps: added to the denominator.
            weight_decay: fraction of a weight subtracted per step, times ``lr``.
            stochastic_rounding: for bf16 weights and moments; otherwise they are rounded to nearest.
            seed: of the rounding.

        Raises:
            ValueError: arguments out of range.
        """
        check_ranges(lr=lr, eps=eps, weight_decay=weight_decay)
        check_shares(betas=betas)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def new_state(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return new_moments(parameter, self.bits)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all parameters that have a gradient; returns what ``closure``, called first, returns."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for number, (group, parameter) in enumerate(self.parameters()):
            if parameter.grad is not None:
                if not (state := self.state[parameter]):
                    state.update(self.new_state(parameter, group))
                self.update(parameter, parameter.grad, state, group, number)
        return loss

    def update(
        self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any], number: int
    ) -> None:
        """One step of one parameter, number ``number`` of all."""
        state["step"] += 1
        update_adamw(parameter, grad, state, group, self.noise(parameter, state, group, number), self.bits)

    def noise(
        self, parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any], number: int
    ) -> Noise | None:
        """The rounding noise of this step of this parameter; None: round to nearest."""
        if not group["stochastic_rounding"] or parameter.dtype != torch.bfloat16:
            return None
        return Noise(group["seed"], int(state["step"]), number, parameter.device)


class AdamW8bit(AdamW):
    """AdamW with 8-bit moments: 6.02 bytes per bf16 parameter with weight and gradient (arXiv 2110.02861)."""

    bits = 8


class AdamW4bit(AdamW):
    """AdamW with 4-bit moments: 5.03 bytes per bf16 parameter with weight and gradient (arXiv 2309.01507)."""

    bits = 4


def new_moments(parameter: Tensor, bits: Literal[4, 8] | None) -> dict[str, Tensor]:
    """The state of a parameter before its first step; quantized moments are flat."""
    state = {"step": torch.zeros(())}  # on the CPU, where reading it waits for nothing
    for name, signed in MOMENTS.items():
        if bits is None:
            state[name] = torch.zeros_like(parameter)
        elif parameter.numel() < SMALLEST:
            state[name] = torch.zeros_like(parameter, dtype=torch.float32)
        else:
            state[name], state[f"{name}_scale"] = Code(bits, signed).zeros(
                parameter.numel(), parameter.device
            )
    return state


def update_adamw(
    parameter: Tensor,
    grad: Tensor,
    state: dict[str, Tensor],
    group: dict[str, Any],
    noise: Noise | None,
    bits: Literal[4, 8] | None = None,
) -> None:
    """One step of AdamW, in place; ``state["step"]`` already counts it.

    The update uses the moments before they are rounded.
    """
    beta1, beta2 = group["betas"]
    step = float(state["step"])
    step_size = group["lr"] / (1 - beta1**step)
    root_of_correction2 = math.sqrt(1 - beta2**step)
    flat, flat_grad = parameter.view(-1), grad.reshape(-1)
    piece = PIECES.get(parameter.device.type, PIECE)
    for start in range(0, flat.numel(), piece):
        rows = slice(start, min(start + piece, flat.numel()))
        mean, square = (_Moment(name, state, rows, bits) for name in MOMENTS)
        grad_N = flat_grad[rows].float()
        mean_N = mean.read().lerp_(grad_N, 1 - beta1)
        square_N = square.read().mul_(beta2).addcmul_(grad_N, grad_N, value=1 - beta2)
        mean.write(mean_N, noise)
        square.write(square_N, noise)
        weight_N = flat[rows].float()
        weight_N = weight_N.mul(1 - group["lr"] * group["weight_decay"])
        weight_N.addcdiv_(
            mean_N, square_N.sqrt_().div_(root_of_correction2).add_(group["eps"]), value=-step_size
        )
        write(flat[rows], weight_N, noise)


class _Moment:
    """A piece of a moment, in whatever type it is stored."""

    def __init__(self, name: str, state: dict[str, Tensor], rows: slice, bits: Literal[4, 8] | None) -> None:
        self.n = rows.stop - rows.start
        self.code = Code(bits, MOMENTS[name]) if bits and f"{name}_scale" in state else None
        kept = state[name].view(-1)
        if self.code is None:
            self.kept = kept[rows]
        else:
            bytes_ = slice(rows.start * self.code.bits // 8, -(-rows.stop * self.code.bits // 8))
            blocks = slice(rows.start // self.code.block, -(-rows.stop // self.code.block))
            self.kept, self.scale = kept[bytes_], state[f"{name}_scale"][blocks]

    def read(self) -> Tensor:
        """A copy, (N,) fp32."""
        if self.code is None:
            return self.kept.to(torch.float32, copy=True)
        return self.code.decode(self.kept, self.scale, self.n)

    def write(self, values_N: Tensor, noise: Noise | None) -> None:
        if self.code is None:
            write(self.kept, values_N, noise)
        else:
            codes_C, scale = self.code.encode(values_N)
            self.kept.copy_(codes_C)
            self.scale.copy_(scale)


def check_ranges(**values: float) -> None:
    """
    Raises:
        ValueError: one is negative or not a number.
    """
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be 0 or more, got {value}")


def check_shares(**values: float | tuple[float, ...]) -> None:
    """
    Raises:
        ValueError: one is not from 0 to below 1.
    """
    for name, value in values.items():
        if not all(0 <= share < 1 for share in (value if isinstance(value, list | tuple) else (value,))):
            raise ValueError(f"{name} must be from 0 to below 1, got {value}")
