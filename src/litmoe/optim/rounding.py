"""Stochastic rounding to bf16: up or down at random, so that the mean over many updates is the exact one.

Rounding to the nearest loses every update below 1/512 of a weight, and bf16 training with small learning rates
stands still (arXiv 2010.06192).
"""

import torch
from torch import Tensor


class Noise:
    """Random bits that are a pure function of (seed, step, number of the parameter).

    So nothing of it has to be saved for a run to repeat, replicas on several devices draw the same, and the order
    in which parameters are updated does not matter.
    """

    def __init__(self, seed: int, step: int, number: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(_mixed(_mixed(_mixed(seed) + step) + number))

    def bits(self, like: Tensor) -> Tensor:
        """Uniform integers below 2**16, int32, of the shape of ``like``."""
        return torch.empty_like(like, dtype=torch.int32).random_(0, 1 << 16, generator=self.generator)


@torch.no_grad()
def write(target: Tensor, values: Tensor, noise: Noise | None) -> None:
    """Copy fp32 ``values`` into ``target``; bf16 targets are rounded stochastically where there is ``noise``."""
    if noise is None or target.dtype != torch.bfloat16:
        target.copy_(values)
        return
    # bf16 is the upper half of fp32: noise below it carries into it with the probability of the lower half
    rounded = (values.view(torch.int32) + noise.bits(values)).bitwise_and_(-1 << 16).view(torch.float32)
    # a NaN of all ones would overflow to zero
    target.copy_(torch.where(values.isnan(), values, rounded))


def _mixed(value: int) -> int:
    """SplitMix64's finalizer: neighbouring seeds give unrelated numbers, in the lower 32 bits too."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return (value ^ (value >> 31)) % 2**63
