import litgpt.model
import pytest
import torch

from litmoe.model.norm import RMSNorm


@pytest.mark.parametrize("add_unit_offset", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_is_litgpts(dtype: torch.dtype, add_unit_offset: bool) -> None:
    """Its output to the bit, its gradients up to their last digit."""
    torch.manual_seed(0)
    args = {"eps": 1e-5, "add_unit_offset": add_unit_offset}
    theirs, ours = (cls(48, **args).to(dtype) for cls in (litgpt.model.RMSNorm, RMSNorm))
    weight = torch.randn(48, dtype=dtype)
    x, dy = torch.randn(3, 7, 48, dtype=dtype), torch.randn(3, 7, 48, dtype=dtype)
    results = []
    for norm in (theirs, ours):
        norm.weight.data.copy_(weight)
        inputs = x.clone().requires_grad_()
        y = norm(inputs)
        y.backward(dy)
        results.append((y, inputs.grad, norm.weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    for expected, got in zip(*(grads[1:] for grads in results), strict=True):
        assert got.dtype == dtype
        assert (got - expected).float().norm() <= (1e-6 if dtype == torch.float32 else 4e-3) * expected.norm()
    with torch.no_grad():
        assert torch.equal(ours(x), results[0][0])


def test_gradients_of_the_norm_against_finite_differences() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(6, eps=1e-5).double()
    x = torch.randn(2, 3, 6, dtype=torch.double, requires_grad=True)

    def function(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(function, (x, torch.randn(6, dtype=torch.double, requires_grad=True)))


def test_norm_keeps_only_its_input() -> None:
    norm, kept = RMSNorm(64).bfloat16(), []
    x = torch.randn(2, 8, 64, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm(x)
    assert sum(tensor.nbytes for tensor in kept) == x.nbytes + norm.weight.nbytes + 2 * 8 * 4
