"""AdamW against torch's, and with moments in few bits against torchao's."""

import pytest
import torch

from litmoe.optim import AdamW, AdamW4bit, AdamW8bit
from litmoe.optim.adamw import PIECES
from litmoe.optim.state_size import state_shapes

PIECE = PIECES["cpu"]
ARGUMENTS = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}


def steps(optimizer, parameters, n: int = 4, first: int = 0) -> None:
    for step in range(first, first + n):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            grad = torch.randn(parameter.shape, generator=generator)
            parameter.grad = grad.to(parameter.dtype).to(parameter.device)
        optimizer.step()


def parameters(dtype=torch.float32, shapes=((PIECE + 300,), (70, 64), (5,))) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]


def test_in_fp32_it_is_torchs_to_the_bit_and_states_go_both_ways() -> None:
    ours, theirs = parameters(), parameters()
    own = AdamW(ours, **ARGUMENTS)
    torchs = torch.optim.AdamW(theirs, **ARGUMENTS, foreach=False, fused=False)
    steps(own, ours), steps(torchs, theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    crossed, back = AdamW(ours, **ARGUMENTS), torch.optim.AdamW(theirs, **ARGUMENTS, foreach=False)
    crossed.load_state_dict(torchs.state_dict())
    back.load_state_dict(own.state_dict())
    steps(crossed, ours, first=4), steps(back, theirs, first=4)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("cls", "name"), [(AdamW8bit, "AdamW8bit"), (AdamW4bit, "AdamW4bit")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_in_few_bits_are_torchaos(cls, name: str, dtype: torch.dtype) -> None:
    """Its step, not compiled. Weights agree but for the last bit of fp32 arithmetic."""
    theirs_cls = getattr(pytest.importorskip("torchao.optim"), name)
    shapes = ((PIECE + 512,), (70, 128))  # torchao keeps what is no multiple of its block in full
    ours, theirs = parameters(dtype, shapes), parameters(dtype, shapes)
    own, torchaos = cls(ours, **ARGUMENTS, stochastic_rounding=False), theirs_cls(theirs, **ARGUMENTS)
    steps(own, ours)
    with torch.compiler.set_stance("force_eager"):
        steps(torchaos, theirs)
    for a, b in zip(ours, theirs, strict=True):
        same_codes = (own.state[a]["exp_avg"] == torchaos.state[b]["exp_avg"].codes.flatten()).float().mean()
        assert same_codes > 0.999  # ties, which bf16 gradients often are, it rounds by another formula
        close = torch.isclose(a, b, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)
        assert close.float().mean() > 0.999  # where a code is another one, so is the update


@pytest.mark.parametrize(
    ("cls", "dtype", "bytes_per_parameter"),
    [
        (AdamW, torch.float32, 8),
        (AdamW, torch.bfloat16, 4),
        (AdamW8bit, torch.bfloat16, 2 + 2 * 4 / 256),
        (AdamW4bit, torch.bfloat16, 1 + 2 * 4 / 128),
    ],
)
def test_the_state_is_as_small_as_foretold(cls, dtype: torch.dtype, bytes_per_parameter: float) -> None:
    own = parameters(dtype, ((1000, 512),))
    optimizer = cls(own, **ARGUMENTS)
    foretold = [(t.shape, t.dtype) for t in state_shapes(optimizer)]
    steps(optimizer, own, 1)
    state = [tensor for values in optimizer.state.values() for tensor in values.values()]
    assert foretold == [(t.shape, t.dtype) for t in state]
    assert sum(t.nbytes for t in state) - 4 == bytes_per_parameter * own[0].numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cls", [AdamW, AdamW8bit, AdamW4bit])
def test_a_state_saved_and_loaded_goes_on_to_the_bit(cls, dtype: torch.dtype, tmp_path) -> None:
    whole, parts = parameters(dtype), parameters(dtype)
    optimizer = cls(whole, **ARGUMENTS)
    steps(optimizer, whole, 5)
    first = cls(parts, **ARGUMENTS)
    steps(first, parts, 2)
    torch.save(first.state_dict(), tmp_path / "state")
    torch.manual_seed(7)  # rounding depends on no state outside
    second = cls(parts, **ARGUMENTS)
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    steps(second, parts, 3, first=2)
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)
        for key, value in optimizer.state[a].items():
            assert value.dtype == second.state[b][key].dtype and torch.equal(value, second.state[b][key])


def test_bf16_follows_fp32_only_with_stochastic_rounding() -> None:
    """Updates of 1/5,000 of a weight: to the nearest they are lost, stochastically they are right on average."""
    moved = {}
    for name, dtype, rounds in (("fp32", torch.float32, False), ("nearest", torch.bfloat16, False),
                                ("stochastic", torch.bfloat16, True)):  # fmt: skip
        weight = torch.nn.Parameter(torch.ones(5000, dtype=dtype))
        optimizer = AdamW([weight], lr=2e-4, weight_decay=0.0, stochastic_rounding=rounds)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[name] = 1 - weight.float().mean().item()
    assert moved["nearest"] == 0
    assert moved["stochastic"] == pytest.approx(moved["fp32"], rel=0.03)


@pytest.mark.parametrize("arguments", [{"lr": -1}, {"betas": (0.9, 1.0)}, {"eps": float("nan")}])
def test_arguments_out_of_range_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        AdamW(parameters(), **arguments)


def test_the_state_of_another_optimizer_is_refused() -> None:
    own = parameters()
    optimizer = AdamW8bit(own, **ARGUMENTS)
    steps(optimizer, own, 1)
    with pytest.raises(ValueError, match="is not that of AdamW4bit"):
        AdamW4bit(own, **ARGUMENTS).load_state_dict(optimizer.state_dict())
