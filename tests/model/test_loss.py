"""The chunked loss head against plain cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from litmoe.model.loss import linear_cross_entropy, token_losses

T, D, V = 37, 16, 53
OPTIONS = {
    "plain": {},
    "bias": {"bias": torch.linspace(-1, 1, V)},
    "softcap": {"softcap": 0.7},
    "z": {"z_coefficient": 0.3},
    "all": {"bias": torch.linspace(-1, 1, V), "softcap": 0.7, "z_coefficient": 0.3},
}


@pytest.fixture
def data():
    torch.manual_seed(0)
    targets_T = torch.randint(0, V, (T,))
    targets_T[::5] = -100
    return torch.randn(T, D), torch.randn(V, D) / 3, targets_T


def reference(x_TD, weight_VD, targets_T, bias=None, softcap=None, reduction="mean", z_coefficient=0.0):
    logits_TV = F.linear(x_TD, weight_VD, bias)
    if softcap is not None:
        logits_TV = softcap * torch.tanh(logits_TV / softcap)
    loss = F.cross_entropy(logits_TV.float(), targets_T, reduction=reduction)
    if z_coefficient:
        loss = loss + z_coefficient * logits_TV[targets_T != -100].logsumexp(1).square().mean()
    return loss


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("chunk", [1, 8, 256])
def test_loss_and_gradients_are_those_of_the_logits(data, options, chunk):
    x_TD, weight_VD, targets_T = data
    bias = {"bias": options["bias"].clone().requires_grad_()} if "bias" in options else {}
    ours, theirs = leaves(x_TD, weight_VD), leaves(x_TD, weight_VD)
    bias_theirs = {name: value.detach().clone().requires_grad_() for name, value in bias.items()}
    loss, cross_entropy = linear_cross_entropy(*ours, targets_T, chunk=chunk, **options | bias)
    expected = reference(*theirs, targets_T, **options | bias_theirs)
    (3 * loss).backward()  # the incoming gradient counts
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    without_z = reference(*theirs, targets_T, **{**options, "z_coefficient": 0.0})
    torch.testing.assert_close(cross_entropy, without_z.detach(), rtol=1e-6, atol=0)
    ours += bias.values()
    theirs += bias_theirs.values()
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.grad - other.grad).norm() < 2e-6 * other.grad.norm()


@pytest.mark.parametrize("softcap", [None, 0.7])
def test_gradcheck(data, softcap):
    x_TD, weight_VD, targets_T = (t[:9].double() for t in data)
    bias = torch.randn(9, dtype=torch.float64)
    inputs = leaves(x_TD, weight_VD, bias)
    assert torch.autograd.gradcheck(
        lambda x, w, b: linear_cross_entropy(
            x, w, targets_T.long() % 9, chunk=4, bias=b, softcap=softcap, z_coefficient=0.1
        )[0],
        inputs,
    )


def test_evaluation_sees_the_loss_of_training_to_the_bit(data):
    x_TD, weight_VD, targets_T = data
    training, _ = linear_cross_entropy(*leaves(x_TD, weight_VD), targets_T, chunk=8)
    assert torch.equal(linear_cross_entropy(x_TD, weight_VD, targets_T, chunk=8)[0], training)
    with torch.no_grad():
        evaluation, _ = linear_cross_entropy(*leaves(x_TD, weight_VD), targets_T, chunk=8)
    assert torch.equal(evaluation, training) and not evaluation.requires_grad


def test_no_gradient_is_worked_out_without_grad_mode(data):
    x_TD, weight_VD, targets_T = data
    with torch.no_grad(), torch.profiler.profile() as profile:
        linear_cross_entropy(*leaves(x_TD, weight_VD), targets_T, chunk=8)
    products = [event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm")]
    assert sum(products) == -(-T // 8)  # the logits of each chunk, nothing else


def test_token_losses(data):
    x_TD, weight_VD, targets_T = data
    losses_T = token_losses(x_TD, weight_VD, targets_T, chunk=8)
    torch.testing.assert_close(losses_T, reference(x_TD, weight_VD, targets_T, reduction="none"))
    assert (losses_T[targets_T == -100] == 0).all()


def test_only_ignored_targets_give_zero_and_zero_gradients(data):
    x_TD, weight_VD, _ = data
    inputs = leaves(x_TD, weight_VD)
    loss, _ = linear_cross_entropy(*inputs, torch.full((T,), -100))
    loss.backward()
    assert loss == 0
    assert all((leaf.grad == 0).all() for leaf in inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_fp32_up_to_rounding(data, dtype):
    x_TD, weight_VD, targets_T = data
    exact, rounded = leaves(x_TD, weight_VD), leaves(x_TD, weight_VD)
    expected, _ = linear_cross_entropy(*exact, targets_T)
    expected.backward()
    with torch.autocast("cpu", dtype):
        loss, _ = linear_cross_entropy(*rounded, targets_T, chunk=8)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=torch.finfo(dtype).eps, atol=0)
    for coarse, fine in zip(rounded, exact, strict=True):
        assert coarse.grad.dtype == torch.float32
        assert (coarse.grad - fine.grad).norm() < 2 * torch.finfo(dtype).eps * fine.grad.norm()


def test_fp16_does_not_round_small_gradients_to_zero():
    """With a mean inside, a probability of 1e-4 over 2048 tokens would underflow in fp16 (4.9e-8)."""
    torch.manual_seed(0)
    inputs = leaves(torch.randn(2048, 8), torch.zeros(10_000, 8))
    with torch.autocast("cpu", torch.float16):
        loss, _ = linear_cross_entropy(*inputs, torch.zeros(2048, dtype=torch.int64))
    loss.backward()
    expected = inputs[0].sum(0) / 2048 / 10_000  # every wrong token's row
    assert (inputs[1].grad[5] - expected).norm() < 0.01 * expected.norm()


def test_bf16_parameters(data):
    x_TD, weight_VD, targets_T = data
    inputs = leaves(x_TD.bfloat16(), weight_VD.bfloat16())
    exact = leaves(*(leaf.detach().float() for leaf in inputs))
    loss, _ = linear_cross_entropy(*inputs, targets_T, chunk=8)
    loss.backward()
    reference(*exact, targets_T).backward()
    assert loss.dtype == torch.float32
    for coarse, fine in zip(inputs, exact, strict=True):
        assert coarse.grad.dtype == torch.bfloat16
        assert (coarse.grad.float() - fine.grad).norm() < 0.02 * fine.grad.norm()
