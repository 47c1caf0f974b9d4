"""Stochastic rounding: right on average, exact where nothing is to round, and the same every time."""

import torch

from litmoe.optim.rounding import Noise, write

CPU = torch.device("cpu")


def rounded(values: torch.Tensor, *, seed: int = 0, step: int = 1, number: int = 0) -> torch.Tensor:
    target = torch.empty_like(values, dtype=torch.bfloat16)
    write(target, values, Noise(seed, step, number, CPU))
    return target


def test_it_is_one_of_the_two_neighbours_and_right_on_average() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 50)
    draws = torch.stack([rounded(values, step=step).double() for step in range(2000)])
    towards_zero = (values.view(torch.int32) & -65536).view(torch.float32)
    away = (towards_zero.view(torch.int32) + 65536).view(torch.float32)
    assert ((draws == towards_zero) | (draws == away)).all()
    # the mean of 2,000 draws of two values is within 5 standard deviations, at most 0.056 of their distance
    assert ((draws.mean(0) - values.double()) / (away - towards_zero)).abs().max() < 0.056


def test_small_updates_are_not_lost() -> None:
    """A thousand steps of 1/10,000: to the nearest, bf16 stays where it was."""
    nearest, stochastic = (torch.ones(1000, dtype=torch.bfloat16) for _ in range(2))
    for step in range(1000):
        nearest += 1e-4
        write(stochastic, stochastic.float() + 1e-4, Noise(0, step, 0, CPU))
    assert (nearest == 1).all()
    assert abs(stochastic.float().mean().item() - 1.1) < 0.003


def test_what_bf16_holds_stays() -> None:
    everything = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    assert torch.equal(rounded(everything.float()).nan_to_num(7), everything.nan_to_num(7))
    all_ones = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)  # what CUDA calls NaN
    assert rounded(all_ones).isnan().all()


def test_noise_depends_on_seed_step_and_number_alone() -> None:
    values = torch.rand(1000)
    first = rounded(values)
    torch.manual_seed(1)  # not on the global generator
    assert torch.equal(first, rounded(values))
    others = [rounded(values, **changed) for changed in ({"seed": 1}, {"step": 2}, {"number": 1})]
    assert all(not torch.equal(first, other) for other in others)
    assert not torch.equal(others[1], others[2])


def test_without_noise_and_in_fp32_it_is_a_copy() -> None:
    values, target, full = torch.rand(100), torch.empty(100, dtype=torch.bfloat16), torch.empty(100)
    write(target, values, None)
    assert torch.equal(target, values.bfloat16())
    write(full, values, Noise(0, 0, 0, CPU))
    assert torch.equal(full, values)
