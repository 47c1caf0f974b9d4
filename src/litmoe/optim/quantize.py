"""Block-wise quantization of an optimizer's moments to 8 or 4 bits.

By arXiv 2110.02861 (8 bits, blocks of 256) and arXiv 2309.01507 (4 bits, blocks of 128). A number is stored as the
nearest of 256 or 16 levels times the largest magnitude of its block. Signed levels are the dynamic map of
arXiv 1511.04561, in which each power of ten has twice as many levels as the one below it.

Shape suffixes: N numbers, B numbers per block, C bytes of codes.
"""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Code(NamedTuple):
    """A storage format for numbers."""

    bits: int
    """8 or 4."""
    signed: bool
    """Whether there are negative numbers: levels reach from -1 to 1, else from 0 to 1."""

    @property
    def block(self) -> int:
        """Numbers per block."""
        return 256 if self.bits == 8 else 128

    def zeros(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Codes, (C,) uint8, and scales, fp32 and one for every block, of ``n`` zeros."""
        codes_C = torch.zeros(-(-n * self.bits // 8), dtype=torch.uint8, device=device)
        return codes_C, torch.zeros(-(-n // self.block), dtype=torch.float32, device=device)

    def decode(self, codes_C: Tensor, scales: Tensor, n: int) -> Tensor:
        """The numbers, (n,) fp32."""
        if self.bits == 4:
            codes_C = torch.stack([codes_C >> 4, codes_C & 15], dim=1).flatten()[:n]
        levels = _tables(self, codes_C.device).levels
        return levels.index_select(0, codes_C.int()).mul_(scales.repeat_interleave(self.block)[:n])

    def encode(self, values_N: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and scales of fp32 numbers: the nearest level, ties to the larger."""
        n = values_N.numel()
        blocks_B = F.pad(values_N, (0, -n % self.block)).view(-1, self.block)
        scales = blocks_B.abs().amax(1)
        # a block of zeros has no scale to divide by
        scaled_N = (blocks_B / scales.clamp(min=1e-12).unsqueeze(1)).flatten()[:n]
        tables = _tables(self, values_N.device)
        # Levels are further apart than bf16 numbers, so the upper half of a number leaves two candidates.
        codes_N = tables.codes.index_select(0, (scaled_N.view(torch.int32) >> 16).bitwise_and_(0xFFFF))
        codes_N += scaled_N >= tables.midpoints.index_select(0, codes_N)
        codes_C = codes_N.to(torch.uint8)
        if self.bits == 4:
            high_low = F.pad(codes_C, (0, n % 2)).view(-1, 2)
            codes_C = (high_low[:, 0] << 4) | high_low[:, 1]
        return codes_C, scales


def make_tables(device: torch.device) -> None:
    """Build a device's lookup tables now instead of at first use."""
    for bits in (4, 8):
        for signed in (True, False):
            _tables(Code(bits, signed), device)


class _Tables(NamedTuple):
    levels: Tensor
    """Ascending, fp32."""
    midpoints: Tensor
    """Between each level and the next; infinity after the last."""
    codes: Tensor
    """By the upper 16 bits of an fp32 number: the level nearest to the least number with those, int32."""


@cache
def _tables(code: Code, device: torch.device) -> _Tables:
    """Lookup tables: 4 ns per number on a CPU, where a binary search takes 43 ns."""
    levels = torch.tensor(sorted(_levels(code)), dtype=torch.float32)
    midpoints = torch.cat([(levels[1:] + levels[:-1]) / 2, torch.tensor([torch.inf])])
    upper = torch.arange(1 << 16, dtype=torch.int32)
    least = (upper << 16) + (upper >> 15) * 0xFFFF  # of a negative number the one with all lower bits set
    codes = torch.bucketize(least.view(torch.float32), midpoints[:-1], out_int32=True, right=True)
    return _Tables(levels.to(device), midpoints.to(device), codes.to(device))


def _levels(code: Code) -> list[float]:
    if code == Code(4, signed=False):
        return [(level + 1) / 16 for level in range(16)]  # without 0: a second moment divides
    exponents = code.bits - 1
    levels = [0.0, 1.0]
    for exponent in range(exponents):
        count = 2**exponent if code.signed else 2 ** (exponent + 1)
        width = 0.9 / count
        means = [10.0 ** (exponent + 1 - exponents) * (0.1 + width * (i + 0.5)) for i in range(count)]
        levels += [sign * mean for mean in means for sign in ((1, -1) if code.signed else (1,))]
    return levels
