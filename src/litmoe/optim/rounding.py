"""Stochastic rounding to bf16: up or down at random, so that the mean over many updates is exact.

Rounding to nearest loses every update below 1/512 of a weight, half the smallest step between bf16 numbers, and
bf16 training with small learning rates stands still (arXiv 2010.06192).
"""

import torch
from torch import Tensor

from litmoe.splitmix import GOLDEN, MASK, mix


class Noise:
    """Random bits that are a pure function of (seed, step, number of the parameter).

    So a resumed run needs no saved state for it, replicas on several devices draw the same bits, and the order in
    which parameters are updated does not matter.
    """

    def __init__(self, seed: int, step: int, number: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(_mixed(_mixed(_mixed(seed) + step) + number))

    def bits(self, like: Tensor) -> Tensor:
        """Uniform integers below 2**16, int32, of the shape of ``like``."""
        return torch.empty_like(like, dtype=torch.int32).random_(0, 1 << 16, generator=self.generator)


@torch.no_grad()
def write(target: Tensor, values: Tensor, noise: Noise | None) -> None:
    """Copy fp32 ``values`` into ``target``; with ``noise``, a bf16 target is rounded stochastically."""
    if noise is None or target.dtype != torch.bfloat16:
        target.copy_(values)
        return
    # bf16 is the upper half of fp32: noise below it carries into it with the probability of the lower half
    rounded = (values.view(torch.int32) + noise.bits(values)).bitwise_and_(-1 << 16).view(torch.float32)
    # a NaN of all ones would overflow to zero
    target.copy_(torch.where(values.isnan(), values, rounded))


def _mixed(value: int) -> int:
    """A number that neighbouring values do not share, not even in its lower 32 bits."""
    return mix((value + GOLDEN) & MASK) % 2**63
