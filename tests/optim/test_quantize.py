"""8- and 4-bit codes against torchao's, which are the published ones."""

import pytest
import torch

from litmoe.optim.quantize import Code, _tables

CODES = [Code(8, True), Code(8, False), Code(4, True), Code(4, False)]


def numbers(code: Code, n: int = 1 << 16) -> torch.Tensor:
    """Over many orders of magnitude, with exact zeros, levels and midpoints among them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(n, generator=generator) * torch.randn(n, generator=generator).mul(2).exp()
    values[:: code.block] = 1.0 if code.signed else 2.0
    values[1:40:3] = 0.0
    tables = _tables(code, values.device)
    levels = torch.cat([tables.levels, tables.midpoints[:-1]])
    values[1000 : 1000 + len(levels)] = levels
    values[:: code.block] = 2.0  # so that no level is one of the scaled numbers, and a tie
    return values if code.signed else values.abs()


@pytest.mark.parametrize("code", CODES)
def test_codes_are_torchaos(code: Code) -> None:
    optim = pytest.importorskip(
        "torchao.optim.subclass_8bit" if code.bits == 8 else "torchao.optim.subclass_4bit"
    )
    values = numbers(code)
    cls = optim.OptimState8bit if code.bits == 8 else optim.OptimState4bit
    theirs = cls.zeros(values.shape, code.signed, code.block)
    theirs.copy_(values)
    codes_C, scales = code.encode(values)
    assert torch.equal(scales, theirs.scale)
    same = codes_C == theirs.codes
    assert same.float().mean() > 0.9999  # of numbers midway between two levels torchao rounds some otherwise
    if code.bits == 4:
        same = same.repeat_interleave(2)
    decoded = code.decode(codes_C, scales, len(values))
    assert torch.allclose(decoded[same], theirs.dequantize()[same], rtol=1e-6, atol=0)


@pytest.mark.parametrize("code", CODES)
def test_the_level_is_the_nearest(code: Code) -> None:
    """By a search over all levels."""
    values = numbers(code)[: 16 * code.block]
    codes_C, scales = code.encode(values)
    decoded = code.decode(codes_C, scales, len(values))
    levels = _tables(code, values.device).levels
    scale = scales.repeat_interleave(code.block)
    least = (values / scale).unsqueeze(1).sub(levels).abs().amin(1)
    assert (((decoded - values) / scale).abs() <= least + 1e-7).all()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("n", [1, 2, 127, 129, 257, 4097])
def test_any_number_of_numbers(code: Code, n: int) -> None:
    values = numbers(code)[2000 : 2000 + n]
    codes_C, scales = code.encode(values)
    empty = code.zeros(n, values.device)
    assert (codes_C.shape, scales.shape) == (empty[0].shape, empty[1].shape)
    decoded = code.decode(codes_C, scales, n)
    assert decoded.shape == (n,)
    largest = values.abs().max()
    assert (decoded - values).abs().max() <= largest / (8 if code.bits == 4 else 100)
    assert not code.decode(*empty, n).any()


def test_zeros_and_what_is_not_finite() -> None:
    for code in CODES:
        assert not code.decode(*code.encode(torch.zeros(300)), 300).any()
        spoiled = torch.ones(300)
        spoiled[7] = torch.nan
        assert code.decode(*code.encode(spoiled), 300)[: min(code.block, 300)].isnan().any()
