"""The MoE layer: gradients, equivalences, edge cases, precision and state dicts."""

import copy

import pytest
import torch
import torch.nn.functional as F
from litgpt import Config
from litgpt.model import LLaMAMLP, LLaMAMoE

from litmoe.errors import LitMoEError
from litmoe.model.experts import (
    Experts,
    _GroupedExperts,
    _LoopExperts,
    choose_backend,
    row_multiple,
    stack,
    unstack,
)
from litmoe.model.moe import MoE
from litmoe.model.routing import dispatch_plan

D, WIDTH = 24, 20
BASE = {
    "n_embd": D,
    "n_head": 2,
    "bias": False,
    "mlp_class_name": "LLaMAMoE",
    "intermediate_size": WIDTH,
    "n_expert": 6,
    "n_expert_per_token": 2,
}
GROUPED = {
    "n_expert_groups": 3,
    "n_topk_groups": 2,
    "n_topk_scores_per_group": 1,
    "routed_scaling_factor": 1.5,
    "moe_intermediate_size": 12,
}
VARIANTS = {
    "plain": {},
    "top1": {"n_expert_per_token": 1},
    "all": {"n_expert_per_token": 6},
    "shared": {"n_shared_expert": 2, "moe_intermediate_size": 12},
    "scaled": {"routed_scaling_factor": 2.0},
    "grouped": GROUPED,
    "grouped, normalised, shared": GROUPED | {"norm_topk_prob": True, "n_shared_expert": 1},
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pair(**changes) -> tuple[MoE, LLaMAMoE]:
    """Our layer and LitGPT's, with the same weights."""
    config = Config(**BASE | changes)
    ours, theirs = MoE(config), LLaMAMoE(config)
    if config.n_expert_groups:
        ours.gate.e_score_correction_bias.normal_(std=0.1)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def litgpt_gradients(module: MoE) -> dict[str, torch.Tensor]:
    """Gradients by LitGPT's names."""
    gradients = {name: p.grad for name, p in module.named_parameters() if not name.startswith("experts.")}
    return gradients | unstack(module.experts.w13_EID.grad, module.experts.w2_EDI.grad, "experts.")


def assert_relative(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Error relative to the size of the whole tensor."""
    assert (actual - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_output_and_every_gradient_are_litgpts(changes):
    ours, theirs = pair(**changes)
    x_BTD = torch.randn(3, 17, D)
    x_ours, x_theirs = x_BTD.clone().requires_grad_(), x_BTD.clone().requires_grad_()
    dy_BTD = torch.randn_like(x_BTD)
    y_ours, _ = ours(x_ours)
    y_theirs = theirs(x_theirs)
    y_ours.backward(dy_BTD)
    y_theirs.backward(dy_BTD)
    assert_relative(y_ours, y_theirs, 1e-6)
    assert_relative(x_ours.grad, x_theirs.grad, 1e-5)
    gradients = litgpt_gradients(ours)
    for name, parameter in theirs.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if name == "gate.weight" and changes.get("n_expert_per_token") == 1:
            assert gradients[name].norm() < 1e-5  # the softmax over one logit is 1: no gradient but rounding
        else:
            assert_relative(gradients[name], expected, 1e-5)


@pytest.mark.parametrize("row_multiple", [1, 4])
def test_gradcheck_of_the_experts(row_multiple):
    T, K, E = 9, 2, 4
    ids_TK = torch.stack([torch.randperm(E - 1)[:K] for _ in range(T)])  # the last expert gets nothing
    plan = dispatch_plan(ids_TK, ids_TK.flatten().bincount(minlength=E), row_multiple)
    x_TD, weights_TK, w13_EID, w2_EDI = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((T, 5), (T, K), (E, 2 * 3, 5), (E, 5, 3))
    )
    assert torch.autograd.gradcheck(
        lambda *inputs: _LoopExperts.apply(*inputs, plan), (x_TD, weights_TK, w13_EID, w2_EDI)
    )


def test_gradcheck_of_the_layer():
    """Through the router as well: the weights' gradient reaches the gate and the input."""
    layer = MoE(Config(**BASE | {"n_embd": 6, "intermediate_size": 4, "n_expert": 3})).double()
    x_BTD = torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x_BTD)


def test_one_expert_is_a_dense_mlp():
    layer = MoE(Config(**BASE | {"n_expert": 1, "n_expert_per_token": 1}))
    dense = LLaMAMLP(layer.config)
    weights = {name.removeprefix("experts.0."): value for name, value in layer.state_dict().items()}
    del weights["gate.weight"]
    dense.load_state_dict(weights)
    x_BTD = torch.randn(2, 11, D)
    torch.testing.assert_close(layer(x_BTD)[0], dense(x_BTD))


def test_equal_experts_make_routing_irrelevant():
    layer = MoE(Config(**BASE))
    for weight in layer.experts.parameters():
        weight.data[:] = weight.data[0].clone()
    fc_1_ID, fc_2_ID = layer.experts.w13_EID[0].chunk(2)
    x_BTD = torch.randn(2, 11, D)
    y_BTD = (F.silu(x_BTD @ fc_1_ID.T) * (x_BTD @ fc_2_ID.T)) @ layer.experts.w2_EDI[0].T
    torch.testing.assert_close(layer(x_BTD)[0], y_BTD)  # the weights of the chosen experts sum to 1


def test_permuted_tokens_give_permuted_outputs():
    layer = MoE(Config(**BASE)).double()
    x_BTD, order = torch.randn(1, 40, D, dtype=torch.float64), torch.randperm(40)
    torch.testing.assert_close(layer(x_BTD[:, order])[0], layer(x_BTD)[0][:, order])


def test_all_tokens_on_one_expert_leave_zero_gradients_for_the_others():
    layer = MoE(Config(**BASE | {"n_expert_per_token": 1}))
    layer.gate.weight.data.zero_()
    layer.gate.weight.data[2, 0] = 1.0
    x_BTD = torch.randn(2, 16, D)
    x_BTD[..., 0] = 3.0
    y_BTD, routing = layer(x_BTD)
    y_BTD.sum().backward()
    assert routing.counts_E.tolist() == [0, 0, 32, 0, 0, 0]
    for weight in layer.experts.parameters():
        touched = weight.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [False, False, True, False, False, False]


def test_two_runs_agree_to_the_bit():
    layer = MoE(Config(**BASE))
    x_BTD = torch.randn(4, 64, D)

    def run():
        layer.zero_grad()
        x = x_BTD.clone().requires_grad_()
        y, _ = layer(x)
        y.square().sum().backward()
        return [y, x.grad, *(p.grad for p in layer.parameters())]

    for first, second in zip(run(), run(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_fp32_up_to_rounding(dtype):
    layer = MoE(Config(**BASE | {"n_embd": 64, "intermediate_size": 96}))
    x_BTD = torch.randn(2, 70, 64)
    results = []
    for enabled in (False, True):
        layer.zero_grad()
        x = x_BTD.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=enabled):
            y, _ = layer(x)
        y.square().mean().backward()
        assert y.dtype == torch.float32
        assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
        results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    tolerance = 8 * torch.finfo(dtype).eps
    for exact, rounded in zip(*results, strict=True):
        assert not torch.equal(exact, rounded)
        assert_relative(rounded, exact, tolerance)


def test_bf16_parameters_get_bf16_gradients_near_those_of_fp32():
    exact = MoE(Config(**BASE))
    rounded = copy.deepcopy(exact).bfloat16()
    exact.load_state_dict(rounded.state_dict())  # the same weights, so that both route alike
    x_BTD = torch.randn(2, 50, D).bfloat16()
    for layer, x in ((exact, x_BTD.float()), (rounded, x_BTD)):
        y, _ = layer(x)
        assert y.dtype == x.dtype
        y.float().square().mean().backward()
    for fine, coarse in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert coarse.grad.dtype == torch.bfloat16
        assert_relative(coarse.grad.float(), fine.grad, 0.03)


def test_rows_are_padded_in_bf16_on_the_cpu_only():
    x_TD = torch.randn(4, D)
    assert row_multiple(x_TD) == 1
    assert row_multiple(x_TD.bfloat16()) == 32
    with torch.autocast("cpu", torch.bfloat16):
        assert row_multiple(x_TD) == 32
        assert row_multiple(x_TD.double()) == 1


def test_padding_changes_nothing():
    experts = Experts(5, D, WIDTH)
    x_TD, ids_TK = torch.randn(30, D), torch.stack([torch.randperm(5)[:2] for _ in range(30)])
    weights_TK = torch.rand(30, 2)
    results = []
    for multiple in (1, 32):
        experts.zero_grad()
        plan = dispatch_plan(ids_TK, ids_TK.flatten().bincount(minlength=5), multiple)
        inputs = x_TD.clone().requires_grad_(), weights_TK.clone().requires_grad_()
        y_TD = experts(*inputs, plan)
        y_TD.square().sum().backward()
        results.append([y_TD, *(i.grad for i in inputs), *(p.grad for p in experts.parameters())])
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products_are_the_loop(dtype):
    T, K, E = 50, 2, 5
    ids_TK = torch.stack([torch.randperm(E - 1)[:K] for _ in range(T)])  # the last expert gets nothing
    plan = dispatch_plan(ids_TK, ids_TK.flatten().bincount(minlength=E))
    values = [torch.randn(shape) for shape in ((T, 16), (E, 2 * 24, 16), (E, 16, 24))]
    weights_TK, dy_TD = torch.rand(T, K), torch.randn(T, 16).to(dtype)
    results = []
    for function in (_LoopExperts, _GroupedExperts):
        x_TD, w13_EID, w2_EDI = (value.to(dtype).requires_grad_() for value in values)
        inputs = x_TD, weights_TK.clone().requires_grad_(), w13_EID, w2_EDI
        y_TD = function.apply(*inputs, plan)
        y_TD.backward(dy_TD)
        assert all(i.grad.dtype == i.dtype for i in inputs)
        assert not inputs[2].grad[-1].any() and not inputs[3].grad[-1].any()
        results.append([y_TD, *(i.grad for i in inputs)])
    for loop, grouped in zip(*results, strict=True):
        assert_relative(grouped, loop, 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("function", [_LoopExperts, _GroupedExperts])
def test_recomputed_preactivations_are_the_same_to_the_bit(function):
    T, K, E = 50, 2, 5
    ids_TK = torch.stack([torch.randperm(E - 1)[:K] for _ in range(T)])
    plan = dispatch_plan(ids_TK, ids_TK.flatten().bincount(minlength=E))
    values = [torch.randn(shape) for shape in ((T, 16), (T, K), (E, 2 * 24, 16), (E, 16, 24))]
    dy_TD = torch.randn(T, 16)
    results = []
    for recompute in (False, True):
        inputs = [value.clone().requires_grad_() for value in values]
        y_TD = function.apply(*inputs, plan, recompute)
        y_TD.backward(dy_TD)
        results.append([y_TD, *(i.grad for i in inputs)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_backend_is_the_loop_wherever_there_is_no_grouped_kernel():
    assert choose_backend(torch.device("cpu"), torch.bfloat16) == "loop"
    if torch.cuda.is_available():
        assert choose_backend(torch.device("cuda"), torch.float32) == "loop"
        has_kernel = torch.cuda.get_device_capability()[0] in (9, 10)
        assert choose_backend(torch.device("cuda"), torch.bfloat16) == ("grouped" if has_kernel else "loop")


def test_autograd_keeps_input_and_preactivation_and_little_else():
    layer = MoE(Config(**BASE | {"n_embd": 64, "intermediate_size": 128}))
    T, K = 256, 2
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        layer(torch.randn(1, T, 64, requires_grad=True))
    input_and_preactivation = 4 * (T * 64 + T * K * 2 * 128)
    assert sum(saved.values()) < 1.1 * input_and_preactivation


class TestStateDict:
    def test_keys_and_order_are_litgpts(self):
        ours, theirs = pair(**VARIANTS["grouped, normalised, shared"])
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert all(ours.state_dict()[k].shape == v.shape for k, v in theirs.state_dict().items())

    @pytest.mark.parametrize("assign", [False, True])
    def test_round_trip_is_exact(self, assign):
        ours, theirs = pair(n_shared_expert=1, moe_intermediate_size=12)
        with torch.device("meta" if assign else "cpu"):
            again = MoE(ours.config)
        again.load_state_dict(theirs.state_dict(), strict=True, assign=assign)
        for name, value in ours.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
        again(torch.randn(1, 3, D))[0].sum().backward()

    def test_stack_is_the_inverse_of_unstack(self):
        experts = Experts(3, D, WIDTH)
        for a, b in zip(stack(unstack(*experts.parameters(), "p."), "p."), experts.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_missing_and_unexpected_keys_are_named(self):
        ours, _ = pair()
        state = dict(ours.state_dict())
        del state["experts.3.fc_2.weight"]
        state["experts.6.fc_1.weight"] = torch.zeros(1)
        with pytest.raises(RuntimeError) as error:
            ours.load_state_dict(state)
        assert 'Missing key(s) in state_dict: "experts.3.fc_2.weight".' in str(error.value)
        assert 'Unexpected key(s) in state_dict: "experts.6.fc_1.weight".' in str(error.value)
        assert "w13" not in str(error.value)

    def test_a_wrong_shape_is_named(self):
        ours, _ = pair()
        state = dict(ours.state_dict()) | {"experts.1.proj.weight": torch.zeros(D, WIDTH + 1)}
        with pytest.raises(RuntimeError, match=r"size mismatch for experts\.1\.proj\.weight"):
            ours.load_state_dict(state)

    def test_a_partial_state_dict_loads_what_it_has(self):
        ours, _ = pair()
        before = {k: v.clone() for k, v in ours.state_dict().items()}
        result = ours.load_state_dict({"experts.2.fc_1.weight": torch.ones(WIDTH, D)}, strict=False)
        after = ours.state_dict()
        assert sorted(result.missing_keys) == sorted(set(before) - {"experts.2.fc_1.weight"})
        assert result.unexpected_keys == []
        assert (after.pop("experts.2.fc_1.weight") == 1).all()
        assert all(torch.equal(value, before[name]) for name, value in after.items())

    def test_an_empty_state_dict_names_every_expert(self):
        with torch.device("meta"):
            ours = MoE(Config(**BASE))
        result = ours.load_state_dict({}, strict=False, assign=True)
        assert sorted(result.missing_keys) == sorted(ours.state_dict())


@pytest.mark.parametrize("changes", [{"bias": True}, {"n_expert_per_token": 7}, {"n_expert_per_token": 0}])
def test_configurations_that_cannot_work_are_refused(changes):
    with pytest.raises(LitMoEError, match=next(iter(changes))):
        MoE(Config(**BASE | changes))
