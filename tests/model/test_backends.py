"""What every backend of the experts must hold, in both of its forms. A new one is added to `BACKENDS`, and passes.

The reference is a plain loop over tokens in fp64, differentiated by autograd. On a GPU too, where there is one.
"""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from litmoe.model.moe.backends import BACKENDS, BackendName, Fused, Rows, by_rows, choose_backend
from litmoe.model.moe.dispatch import combine, gather, group_by_expert, sort_weights

PLACES = [
    (name, device)
    if device == "cpu"
    else pytest.param(
        name,
        device,
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    )
    for device in ("cpu", "cuda")
    for name in BACKENDS
]
FORMS = ("fused", "rows")


everywhere = pytest.mark.parametrize(("name", "device"), PLACES)


class Layer(NamedTuple):
    """The inputs of one layer."""

    x_TD: Tensor
    weights_TK: Tensor
    w13_EID: Tensor
    w2_EDI: Tensor
    dy_TD: Tensor
    ids_TK: Tensor

    def to(self, device: str, dtype: torch.dtype) -> "Layer":
        x, weights, w13, w2, dy, ids = (tensor.to(device) for tensor in self)
        return Layer(x.to(dtype), weights, w13.to(dtype), w2.to(dtype), dy.to(dtype), ids)


def make(T: int, K: int, E: int, D: int, width: int, used: int | None = None, seed: int = 0) -> Layer:
    """A layer in fp64 whose tokens go to the first `used` experts only."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    ids_TK = torch.rand(T, used or E, generator=generator).argsort(1)[:, :K]
    scale = 1 / D**0.5
    return Layer(
        normal(T, D), normal(T, K), normal(E, 2 * width, D) * scale, normal(E, D, width), normal(T, D), ids_TK
    )


def form(name: BackendName, which: str) -> Fused:
    """A backend's fused form, or its row form between a gather and a combine."""
    backend = BACKENDS[name]
    return backend.fused if which == "fused" else lambda *args: by_rows(backend.rows, *args)


def results(
    fused: Fused, layer: Layer, recompute: bool = False, row_multiple: int = 1, autocast: bool = False
) -> dict[str, Tensor]:
    """The output, and every gradient."""
    E = layer.w13_EID.size(0)
    dispatch = group_by_expert(layer.ids_TK, layer.ids_TK.flatten().bincount(minlength=E), row_multiple)
    inputs = [tensor.detach().clone().requires_grad_() for tensor in layer[:4]]
    with torch.autocast(layer.x_TD.device.type, torch.bfloat16, enabled=autocast):
        y_TD = fused(*inputs, dispatch, recompute)
    y_TD.backward(layer.dy_TD)
    names = ("x", "weights", "w13", "w2")
    return {"y": y_TD.detach()} | {n: i.grad for n, i in zip(names, inputs, strict=True)}  # type: ignore[misc]


def reference(layer: Layer) -> dict[str, Tensor]:
    """Token by token in fp64."""
    layer = layer.to("cpu", torch.float64)
    inputs = [tensor.double().clone().requires_grad_() for tensor in layer[:4]]
    x_TD, weights_TK, w13_EID, w2_EDI = inputs
    outputs = []
    for t, ids in enumerate(layer.ids_TK.tolist()):
        parts = []
        for k, e in enumerate(ids):
            w1_ID, w3_ID = w13_EID[e].chunk(2)
            parts.append(weights_TK[t, k] * (w2_EDI[e] @ (F.silu(w1_ID @ x_TD[t]) * (w3_ID @ x_TD[t]))))
        outputs.append(torch.stack(parts).sum(0))
    y_TD = torch.stack(outputs)
    y_TD.backward(layer.dy_TD)
    names = ("x", "weights", "w13", "w2")
    return {"y": y_TD.detach()} | {n: i.grad for n, i in zip(names, inputs, strict=True)}  # type: ignore[misc]


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Errors relative to the size of the whole tensor."""
    for name, value in expected.items():
        error = (actual[name].cpu().double() - value.cpu().double()).norm()
        assert error <= tolerance * value.double().norm() + 1e-30, name


@everywhere
@pytest.mark.parametrize("which", FORMS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_values_and_gradients_are_those_of_a_plain_loop(
    name: BackendName, device: str, which: str, data: st.DataObject
) -> None:
    """Any number of tokens, experts and choices, experts without tokens, widths of any size that it takes."""
    step = max(1, BACKENDS[name].alignment // 4)
    E = data.draw(st.integers(1, 9))
    used = data.draw(st.integers(1, E))
    K = data.draw(st.integers(1, used))
    T = data.draw(st.integers(1, 70))
    D, width = (step * data.draw(st.integers(1, 40 // step)) for _ in range(2))
    layer = make(T, K, E, D, width, used, seed=data.draw(st.integers(0, 99))).to(device, torch.float32)
    multiple, recompute = data.draw(st.sampled_from([1, 8])), data.draw(st.booleans())
    found = results(form(name, which), layer, recompute, multiple)
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(found, torch.float32) | {
        "weights": layer.weights_TK.dtype
    }
    assert_near(found, reference(layer), 1e-5)


@everywhere
@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("mode", ["bf16", "autocast", "fp16"])
def test_narrow_types_are_right_up_to_their_rounding(
    name: BackendName, device: str, which: str, mode: str
) -> None:
    layer = make(T=60, K=2, E=5, D=64, width=96, used=4)
    layer = layer._replace(weights_TK=layer.weights_TK.float())
    dtype = {"bf16": torch.bfloat16, "autocast": torch.float32, "fp16": torch.float16}[mode]
    layer = layer.to(device, dtype)
    found = results(form(name, which), layer, autocast=mode == "autocast")
    for tensor, value in found.items():
        assert value.dtype == (torch.float32 if tensor == "weights" else dtype)
    eps = torch.finfo(torch.float16 if mode == "fp16" else torch.bfloat16).eps
    assert_near(found, reference(layer), 4 * eps)
    assert not found["w13"][4].any() and not found["w2"][4].any()  # written, though nothing came


@everywhere
@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_repeat_and_recomputation_changes_no_bit(
    name: BackendName, device: str, which: str, dtype: torch.dtype
) -> None:
    layer = make(T=300, K=3, E=6, D=64, width=32).to(device, dtype)
    first, *others = (results(form(name, which), layer, recompute) for recompute in (False, False, True))
    for other in others:
        assert all(torch.equal(first[tensor], other[tensor]) for tensor in first)


@everywhere
def test_the_row_form_is_the_fused_form(name: BackendName, device: str) -> None:
    """Up to where the weight is multiplied: tighter than either is to the reference."""
    layer = make(T=200, K=2, E=6, D=64, width=32).to(device, torch.float32)
    assert_near(results(form(name, "rows"), layer), results(form(name, "fused"), layer), 3e-7)


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("row_multiple", [1, 4])
def test_gradcheck(which: str, row_multiple: int) -> None:
    """Finite differences in fp64, which the loop alone multiplies in; through gather and combine too."""
    layer = make(T=7, K=2, E=4, D=5, width=3, used=3)
    dispatch = group_by_expert(layer.ids_TK, layer.ids_TK.flatten().bincount(minlength=4), row_multiple)
    inputs = [tensor.clone().requires_grad_() for tensor in layer[:4]]
    assert torch.autograd.gradcheck(lambda *args: form("loop", which)(*args, dispatch, False), inputs)


def test_gather_and_combine_are_each_others_gradients() -> None:
    """For rows that a backend gives and takes alone: <gather(x), y> = <x, combine(y)>, padding left out."""
    layer = make(T=9, K=3, E=4, D=5, width=3)
    dispatch = group_by_expert(layer.ids_TK, layer.ids_TK.flatten().bincount(minlength=4), row_multiple=4)
    x_TD = layer.x_TD.clone().requires_grad_()
    y_AD = torch.randn(dispatch.tokens_A.numel(), 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: combine(y, dispatch), y_AD)
    real_A1 = torch.zeros(y_AD.size(0), 1, dtype=torch.float64)
    real_A1[dispatch.inverse_TK.flatten()] = 1
    assert torch.autograd.gradcheck(lambda x: gather(x, dispatch) * real_A1, x_TD)
    torch.testing.assert_close(
        (gather(x_TD, dispatch) * real_A1 * y_AD).sum(), (x_TD * combine(y_AD, dispatch)).sum()
    )
    assert sort_weights(layer.weights_TK, dispatch).count_nonzero() == 27


@everywhere
def test_no_rows_at_all(name: BackendName, device: str) -> None:
    """As on a rank whose experts nobody chose."""
    layer = make(T=1, K=1, E=3, D=8, width=4).to(device, torch.float32)
    rows: Rows = BACKENDS[name].rows
    inputs = (
        torch.empty(0, 8, device=device),
        torch.empty(0, device=device),
        layer.w13_EID,
        layer.w2_EDI,
    )
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y_AD = rows(*leaves, torch.zeros(3, dtype=torch.int32, device=device), False)
    y_AD.sum().backward()
    assert y_AD.shape == (0, 8)
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves)


@pytest.mark.parametrize("name", list(BACKENDS))
def test_the_row_form_keeps_its_input_the_pre_activation_and_the_weights(name: BackendName) -> None:
    """And with recomputation not even the pre-activation; outputs never."""
    T, K, D, width = 256, 2, 32, 64
    layer = make(T, K, 4, D, width).to("cpu", torch.float32)
    dispatch = group_by_expert(layer.ids_TK, layer.ids_TK.flatten().bincount(minlength=4))
    x_AD = gather(layer.x_TD, dispatch).requires_grad_()
    weight_A = sort_weights(layer.weights_TK.float(), dispatch).requires_grad_()
    for recompute, kept_per_row in ((False, D + 2 * width + 1), (True, D + 1)):
        saved: dict[int, int] = {}
        weights = {layer.w13_EID.data_ptr(), layer.w2_EDI.data_ptr()}

        def note(tensor: Tensor, saved: dict[int, int] = saved, weights: set[int] = weights) -> Tensor:
            if tensor.data_ptr() not in weights:
                saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            y_AD = BACKENDS[name].rows(
                x_AD, weight_A, layer.w13_EID, layer.w2_EDI, dispatch.offsets_E, recompute
            )
        assert sum(saved.values()) == T * K * kept_per_row
        assert y_AD.data_ptr() not in saved


def test_grouped_products_are_chosen_only_for_widths_that_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card that has the kernel; a width of 100 in bf16 is 200 bytes, no multiple of 16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    cuda = torch.device("cuda")
    assert choose_backend(cuda, torch.bfloat16, 768, 2048) == "grouped"
    assert choose_backend(cuda, torch.bfloat16, 768, 100) == "loop"
    assert choose_backend(cuda, torch.float32, 768, 2048) == "loop"
