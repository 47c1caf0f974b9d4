"""What every backend of the experts must hold: LitGPT's numbers, exact gradients, edge cases, precision.

The whole layer is tested, router and all, once for each backend; on a GPU too, where there is one.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from litgpt import Config
from litgpt.model import LLaMAMLP, LLaMAMoE
from torch import Tensor

from litmoe.model.moe.backends import BackendName, choose_backend, row_multiple
from litmoe.model.moe.dispatch import group_by_expert
from litmoe.model.moe.experts import Experts, unstack
from litmoe.model.moe.layer import MoE

D, WIDTH = 24, 20  # whose rows are multiples of 16 bytes in fp32, as grouped products need them
BASE = {
    "n_embd": D,
    "n_head": 2,
    "bias": False,
    "mlp_class_name": "LLaMAMoE",
    "intermediate_size": WIDTH,
    "n_expert": 6,
    "n_expert_per_token": 2,
}
GROUPED_ROUTER = {
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
    "grouped": GROUPED_ROUTER,
    "grouped, normalised, shared": GROUPED_ROUTER | {"norm_topk_prob": True, "n_shared_expert": 1},
}
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
MakeLayer = Callable[..., MoE]


@pytest.fixture(
    params=[
        ("loop", "cpu"),
        ("grouped", "cpu"),
        pytest.param(("loop", "cuda"), marks=needs_gpu),
        pytest.param(("grouped", "cuda"), marks=needs_gpu),
    ],
    ids="-".join,
)
def place(request: pytest.FixtureRequest) -> tuple[BackendName, str]:
    torch.manual_seed(0)
    backend, device = request.param
    return backend, device


@pytest.fixture
def make_layer(place: tuple[BackendName, str]) -> MakeLayer:
    """A layer on the backend and device under test."""

    def make(**changes: object) -> MoE:
        layer = MoE(Config(**BASE | changes)).to(place[1])
        layer.experts.backend = place[0]
        return layer

    return make


@pytest.fixture
def device(place: tuple[BackendName, str]) -> str:
    return place[1]


def run(module: torch.nn.Module, x_BTD: Tensor, dy_BTD: Tensor) -> dict[str, Tensor]:
    """The output of a layer, ours or another, and every gradient by LitGPT's names."""
    module.zero_grad()
    x = x_BTD.clone().requires_grad_()
    y = module(x)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(dy_BTD)
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in module.named_parameters()
    }
    if isinstance(module, MoE):
        stacks = gradients.pop("experts.w13_EID"), gradients.pop("experts.w2_EDI")
        gradients |= unstack(*stacks, "experts.")
    return {"output": y.detach(), "input": x.grad, **gradients}


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float, name: str = "") -> None:
    """Error relative to the size of the whole tensor."""
    assert (actual - expected).norm() <= tolerance * expected.norm(), name


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_output_and_every_gradient_are_litgpts(make_layer: MakeLayer, device: str, changes: dict) -> None:
    ours = make_layer(**changes)
    if ours.config.n_expert_groups:
        ours.gate.e_score_correction_bias.normal_(std=0.1)
    theirs = LLaMAMoE(ours.config).to(device)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x_BTD, dy_BTD = torch.randn(2, 3, 17, D, device=device)
    expected, actual = run(theirs, x_BTD, dy_BTD), run(ours, x_BTD, dy_BTD)
    assert actual.keys() == expected.keys()
    for name in expected:
        if name == "gate.weight" and changes.get("n_expert_per_token") == 1:
            assert actual[name].norm() < 1e-5  # the softmax over one logit is 1: no gradient but rounding
        else:
            assert_relative(actual[name], expected[name], 1e-5, name)


@pytest.mark.parametrize("row_multiple", [1, 4])
def test_gradcheck_of_the_experts(row_multiple: int) -> None:
    """Finite differences in fp64, which the loop alone can multiply in."""
    T, K, E = 9, 2, 4
    ids_TK = torch.stack([torch.randperm(E - 1)[:K] for _ in range(T)])  # the last expert gets nothing
    dispatch = group_by_expert(ids_TK, ids_TK.flatten().bincount(minlength=E), row_multiple)
    experts = Experts(E, 5, 3).double()
    x_TD = torch.randn(T, 5, dtype=torch.float64, requires_grad=True)
    weights_TK = torch.randn(T, K, dtype=torch.float64, requires_grad=True)

    def call(x_TD: Tensor, weights_TK: Tensor, *_: Tensor) -> Tensor:
        return experts(x_TD, weights_TK, dispatch)

    assert torch.autograd.gradcheck(call, (x_TD, weights_TK, *experts.parameters()))


def test_gradcheck_of_the_layer() -> None:
    """Through the router as well: the weights' gradient reaches the gate and the input."""
    layer = MoE(Config(**BASE | {"n_embd": 6, "intermediate_size": 4, "n_expert": 3})).double()
    x_BTD = torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x_BTD)


def test_one_expert_is_a_dense_mlp(make_layer: MakeLayer, device: str) -> None:
    layer = make_layer(n_expert=1, n_expert_per_token=1)
    dense = LLaMAMLP(layer.config).to(device)
    weights = {name.removeprefix("experts.0."): value for name, value in layer.state_dict().items()}
    del weights["gate.weight"]
    dense.load_state_dict(weights)
    x_BTD, dy_BTD = torch.randn(2, 2, 11, D, device=device)
    expected, actual = run(dense, x_BTD, dy_BTD), run(layer, x_BTD, dy_BTD)
    for name, value in expected.items():
        own = name if name in ("output", "input") else f"experts.0.{name}"
        assert_relative(actual[own], value, 1e-5, name)


def test_equal_experts_make_routing_irrelevant(make_layer: MakeLayer, device: str) -> None:
    layer = make_layer()
    for weight in layer.experts.parameters():
        weight.data[:] = weight.data[0].clone()
    fc_1_ID, fc_2_ID = layer.experts.w13_EID[0].chunk(2)
    x_BTD = torch.randn(2, 11, D, device=device)
    y_BTD = (F.silu(x_BTD @ fc_1_ID.T) * (x_BTD @ fc_2_ID.T)) @ layer.experts.w2_EDI[0].T
    assert_relative(layer(x_BTD)[0], y_BTD, 1e-5)  # the weights of the chosen experts sum to 1


def test_permuted_tokens_give_permuted_outputs(make_layer: MakeLayer, device: str) -> None:
    layer = make_layer()
    x_BTD, order = torch.randn(1, 40, D, device=device), torch.randperm(40, device=device)
    assert_relative(layer(x_BTD[:, order])[0], layer(x_BTD)[0][:, order], 1e-5)


@pytest.mark.parametrize("K", [1, 2])
def test_experts_without_tokens_have_zero_gradients(make_layer: MakeLayer, device: str, K: int) -> None:
    """All tokens go to the same K experts; the others get none."""
    layer = make_layer(n_expert_per_token=K)
    layer.gate.weight.data.zero_()
    layer.gate.weight.data[2, 0], layer.gate.weight.data[4, 0] = 1.0, 0.5
    x_BTD = torch.randn(2, 16, D, device=device)
    x_BTD[..., 0] = 3.0
    y_BTD, routing = layer(x_BTD)
    y_BTD.sum().backward()
    used = [False, False, True, False, K == 2, False]
    assert routing.counts_E.tolist() == [32 * number for number in used]
    for weight in layer.experts.parameters():
        touched = weight.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == used


def test_two_runs_agree_to_the_bit(make_layer: MakeLayer, device: str) -> None:
    layer = make_layer()
    x_BTD, dy_BTD = torch.randn(2, 4, 64, D, device=device)
    first, second = run(layer, x_BTD, dy_BTD), run(layer, x_BTD, dy_BTD)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_recomputation_changes_no_bit_and_no_count(make_layer: MakeLayer, device: str) -> None:
    layer = make_layer()
    x_BTD, dy_BTD = torch.randn(2, 4, 64, D, device=device)
    kept, counts_E = run(layer, x_BTD, dy_BTD), layer(x_BTD)[1].counts_E
    layer.experts.recompute = True
    again = run(layer, x_BTD, dy_BTD)
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert torch.equal(layer(x_BTD)[1].counts_E, counts_E)
    assert counts_E.sum() == 4 * 64 * 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_fp32_up_to_rounding(make_layer: MakeLayer, device: str, dtype: torch.dtype) -> None:
    layer = make_layer(n_embd=64, intermediate_size=96)
    x_BTD, dy_BTD = torch.randn(2, 2, 70, 64, device=device)
    exact = run(layer, x_BTD, dy_BTD)
    with torch.autocast(device, dtype):
        rounded = run(layer, x_BTD, dy_BTD)
    for name, value in rounded.items():
        assert value.dtype == torch.float32
        assert not torch.equal(exact[name], value)
        assert_relative(value, exact[name], 8 * torch.finfo(dtype).eps, name)


def test_bf16_parameters_get_bf16_gradients_near_those_of_fp32(make_layer: MakeLayer, device: str) -> None:
    exact = make_layer(intermediate_size=32)
    rounded = copy.deepcopy(exact).bfloat16()
    exact.load_state_dict(rounded.state_dict())  # the same weights, so that both route alike
    x_BTD, dy_BTD = torch.randn(2, 2, 50, D, device=device).bfloat16()
    fine = run(exact, x_BTD.float(), dy_BTD.float())
    for name, coarse in run(rounded, x_BTD, dy_BTD).items():
        assert coarse.dtype == torch.bfloat16
        assert_relative(coarse.float(), fine[name], 0.03, name)


def test_padding_changes_nothing(make_layer: MakeLayer, device: str) -> None:
    experts = make_layer(n_expert=5).experts
    ids_TK = torch.stack([torch.randperm(5)[:2] for _ in range(30)]).to(device)
    x_TD, weights_TK = torch.randn(30, D, device=device), torch.rand(30, 2, device=device)
    results = []
    for multiple in (1, 32):
        experts.zero_grad()
        dispatch = group_by_expert(ids_TK, ids_TK.flatten().bincount(minlength=5), multiple)
        inputs = x_TD.clone().requires_grad_(), weights_TK.clone().requires_grad_()
        y_TD = experts(*inputs, dispatch)
        y_TD.square().sum().backward()
        results.append([y_TD, *(i.grad for i in inputs), *(p.grad for p in experts.parameters())])
    for plain, padded in zip(*results, strict=True):
        assert_relative(padded, plain, 1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_autograd_keeps_less_than_half_of_what_it_would(
    make_layer: MakeLayer, device: str, autocast: bool
) -> None:
    """Input, pre-activation and routing, against all that plain autograd keeps of the same layer (LitGPT's)."""
    width = 192  # a quarter of MoE-200M
    ours = make_layer(n_embd=width, intermediate_size=512, n_expert=8)
    theirs = LLaMAMoE(ours.config).to(device)
    T, K = 2048, 2

    def kept(module: torch.nn.Module) -> int:
        saved: dict[int, int] = {}
        alive = []

        def note(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in weights:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                alive.append(tensor)  # or its address would be given to the next one
            return tensor

        weights = {p.data_ptr() for p in module.parameters()}
        x_BTD = torch.randn(1, T, width, device=device, requires_grad=True)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast(device, torch.bfloat16, enabled=autocast),
        ):
            module(x_BTD)
        return sum(saved.values())

    assert kept(ours) <= 0.45 * kept(theirs)
    ours.experts.recompute = True
    assert kept(ours) <= 1.25 * (T * width * 4) + T * K * 8 * 2  # the input, and where its rows go


def test_backend_is_the_loop_wherever_there_is_no_grouped_kernel() -> None:
    assert choose_backend(torch.device("cpu"), torch.bfloat16) == "loop"
    if torch.cuda.is_available():
        assert choose_backend(torch.device("cuda"), torch.float32) == "loop"
        has_kernel = torch.cuda.get_device_capability()[0] in (9, 10)
        assert choose_backend(torch.device("cuda"), torch.bfloat16) == ("grouped" if has_kernel else "loop")


def test_rows_are_padded_in_bf16_on_the_cpu_only() -> None:
    x_TD = torch.randn(4, D)
    assert row_multiple(x_TD) == 1
    assert row_multiple(x_TD.bfloat16()) == 32
    with torch.autocast("cpu", torch.bfloat16):
        assert row_multiple(x_TD) == 32
        assert row_multiple(x_TD.double()) == 1
