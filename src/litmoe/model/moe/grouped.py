"""Backend `grouped`: one product for all experts at once, and no wait for the device.

Shape suffixes: T tokens, K experts per token, E experts, D model width, I expert width, A dispatched rows, X and Y
widths of any two matrices; weights and `h13_AI` as in `backends.py`.

A kernel that multiplies rows by the matrices of their experts need only supply the three functions of `Products`.
Working memory is that of all rows. The stacks are multiplied in the type of the input, so under autocast they are
cast whole.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from litmoe.model.moe.dispatch import Dispatch, sort_weights, weighted_sum
from litmoe.model.moe.swiglu import swiglu, swiglu_backward
from litmoe.model.precision import compute_dtype


class Products(NamedTuple):
    """The three products of a linear layer whose rows belong to different experts; all operands in one type."""

    forward: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(x_AX, w_EYX, offsets_E) -> `x @ w[e].T`, (A, Y)."""
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(dy_AY, w_EYX, offsets_E) -> `dy @ w[e]`, (A, X)."""
    weight: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(dy_AY, x_AX, offsets_E) -> `dy[rows of e].T @ x[rows of e]`, (E, Y, X); zeros without rows."""


def _forward_product(x_AX: Tensor, w_EYX: Tensor, offsets_E: Tensor) -> Tensor:
    if not x_AX.numel():  # which grouped_mm refuses
        return x_AX.new_zeros(x_AX.size(0), w_EYX.size(1))
    return F.grouped_mm(x_AX, w_EYX.mT, offs=offsets_E)


def _backward_product(dy_AY: Tensor, w_EYX: Tensor, offsets_E: Tensor) -> Tensor:
    if not dy_AY.numel():
        return dy_AY.new_zeros(dy_AY.size(0), w_EYX.size(2))
    return F.grouped_mm(dy_AY, w_EYX, offs=offsets_E)


def _weight_product(dy_AY: Tensor, x_AX: Tensor, offsets_E: Tensor) -> Tensor:
    if not dy_AY.numel():
        return dy_AY.new_zeros(offsets_E.numel(), dy_AY.size(1), x_AX.size(1))
    return F.grouped_mm(dy_AY.T, x_AX, offs=offsets_E)


GROUPED_MM = Products(_forward_product, _backward_product, _weight_product)
"""PyTorch's: fast in bf16 on compute capability 9 and 10 only. Rows must be multiples of 16 bytes long."""


def fused(
    x_TD: Tensor,
    weights_TK: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    dispatch: Dispatch,
    recompute: bool = False,
    products: Products = GROUPED_MM,
) -> Tensor:
    """The weighted sum of every token's experts, (T, D): gathers, multiplies and combines; see `Backend.fused`."""
    y_TD: Tensor = _Fused.apply(x_TD, weights_TK, w13_EID, w2_EDI, dispatch, recompute, products)
    return y_TD


def rows(
    x_AD: Tensor,
    weight_A: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    offsets_E: Tensor,
    recompute: bool = False,
    products: Products = GROUPED_MM,
) -> Tensor:
    """The weighted output of every row's expert, (A, D); see `Backend.rows`."""
    y_AD: Tensor = _Rows.apply(x_AD, weight_A, w13_EID, w2_EDI, offsets_E, recompute, products)
    return y_AD


class _Fused(torch.autograd.Function):
    """Kept for the backward: the input, h13 (not with `recompute`) and the routing."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weights_TK: Tensor,
        w13_EID: Tensor,
        w2_EDI: Tensor,
        dispatch: Dispatch,
        recompute: bool,
        products: Products,
    ) -> Tensor:
        ctx.dtype = dtype = compute_dtype(x_TD)
        ctx.dispatch, ctx.products = dispatch, products
        with torch.autocast(x_TD.device.type, enabled=False):
            x_AD = x_TD.to(dtype)[dispatch.tokens_A]
            h13_AI, y_AD = _forward(products, x_AD, w13_EID, w2_EDI, dispatch.offsets_E)
        ctx.save_for_backward(x_TD, weights_TK, w13_EID, w2_EDI, None if recompute else h13_AI)
        return weighted_sum(y_AD, dispatch.inverse_TK, weights_TK).to(x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_TK, w13_EID, w2_EDI, h13_AI = ctx.saved_tensors
        dtype, dispatch = ctx.dtype, ctx.dispatch
        dx_AD, dweight_A, dw13_EID, dw2_EDI = _backward(
            ctx.products,
            lambda: x_TD.to(dtype)[dispatch.tokens_A],
            lambda: dy_TD.to(dtype)[dispatch.tokens_A],
            sort_weights(weights_TK, dispatch),
            w13_EID,
            w2_EDI,
            h13_AI,
            dispatch.offsets_E,
            dtype,
        )
        dx_TD = weighted_sum(dx_AD, dispatch.inverse_TK, weights_TK).to(x_TD.dtype)
        return dx_TD, dweight_A[dispatch.inverse_TK], dw13_EID, dw2_EDI, None, None, None


class _Rows(torch.autograd.Function):
    """The same on rows that have been gathered, and are combined, elsewhere."""

    @staticmethod
    def forward(
        ctx: Any,
        x_AD: Tensor,
        weight_A: Tensor,
        w13_EID: Tensor,
        w2_EDI: Tensor,
        offsets_E: Tensor,
        recompute: bool,
        products: Products,
    ) -> Tensor:
        ctx.dtype = dtype = compute_dtype(x_AD)
        ctx.products, ctx.offsets_E = products, offsets_E
        with torch.autocast(x_AD.device.type, enabled=False):
            h13_AI, y_AD = _forward(products, x_AD.to(dtype), w13_EID, w2_EDI, offsets_E)
        ctx.save_for_backward(x_AD, weight_A, w13_EID, w2_EDI, None if recompute else h13_AI)
        return y_AD.mul_(weight_A.to(dtype).unsqueeze(1)).to(x_AD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_AD: Tensor) -> tuple[Tensor | None, ...]:
        x_AD, weight_A, w13_EID, w2_EDI, h13_AI = ctx.saved_tensors
        dx_AD, dweight_A, dw13_EID, dw2_EDI = _backward(
            ctx.products,
            lambda: x_AD.to(ctx.dtype, copy=True),
            lambda: dy_AD.to(ctx.dtype, copy=True),
            weight_A,
            w13_EID,
            w2_EDI,
            h13_AI,
            ctx.offsets_E,
            ctx.dtype,
        )
        dx_AD = dx_AD.mul_(weight_A.to(ctx.dtype).unsqueeze(1)).to(x_AD.dtype)
        return dx_AD, dweight_A, dw13_EID, dw2_EDI, None, None, None


def _forward(
    products: Products, x_AD: Tensor, w13_EID: Tensor, w2_EDI: Tensor, offsets_E: Tensor
) -> tuple[Tensor, Tensor]:
    """h13, (A, 2I), and the outputs of all rows before weighting, (A, D)."""
    h13_AI = products.forward(x_AD, w13_EID.to(x_AD.dtype), offsets_E)
    return h13_AI, products.forward(swiglu(h13_AI), w2_EDI.to(x_AD.dtype), offsets_E)


def _backward(
    products: Products,
    make_x: Callable[[], Tensor],
    make_dy: Callable[[], Tensor],
    weight_A: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    h13_AI: Tensor | None,
    offsets_E: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the rows, (A, D), still to be weighted, of their weights, (A,), and of both stacks.

    `make_x` and `make_dy` make copies, which are written over, of the rows and of the gradient of their weighted
    outputs.
    """
    weight_A1, weight_dtype = weight_A.unsqueeze(1).to(dtype), weight_A.dtype
    del weight_A  # of which one in the type of the products is enough
    with torch.autocast(w13_EID.device.type, enabled=False):
        x_AD = make_x()
        if h13_AI is None:
            h13_AI = products.forward(x_AD, w13_EID.to(dtype), offsets_E)
        dy_AD = make_dy()
        da_AI = products.backward(dy_AD, w2_EDI.to(dtype), offsets_E)
        a_AI, dh13_AI = swiglu_backward(da_AI, h13_AI)
        dweight_A = da_AI.mul_(a_AI).sum(1, dtype=weight_dtype)
        dx_AD = products.backward(dh13_AI, w13_EID.to(dtype), offsets_E)
        dw2_EDI = products.weight(dy_AD.mul_(weight_A1), a_AI, offsets_E).to(w2_EDI.dtype)
        dw13_EID = products.weight(dh13_AI, x_AD.mul_(weight_A1), offsets_E).to(w13_EID.dtype)
    return dx_AD, dweight_A, dw13_EID, dw2_EDI
