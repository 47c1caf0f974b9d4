"""Backend `loop`: expert by expert, on any device and in any type.

Shape suffixes: T tokens, K experts per token, E experts, D model width, I expert width, A dispatched rows,
N the rows of one expert; weights and `h13_AI` as in `backends.py`.

Working memory is that of one expert's rows. Autograd never sees the stacks being indexed: it would allocate a zero
stack per expert. Every expert's gradient is written, zeros included: DDP waits for all of them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from litmoe.model.moe.dispatch import Dispatch, sort_weights, weighted_sum
from litmoe.model.moe.swiglu import swiglu, swiglu_backward
from litmoe.model.precision import compute_dtype

RowsOf = Callable[[slice], Tensor]
"""The rows of one expert, (N, D), in the type of the products."""


def fused(
    x_TD: Tensor,
    weights_TK: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    dispatch: Dispatch,
    recompute: bool = False,
) -> Tensor:
    """The weighted sum of every token's experts, (T, D): gathers, multiplies and combines; see `Backend.fused`."""
    y_TD: Tensor = _Fused.apply(x_TD, weights_TK, w13_EID, w2_EDI, dispatch, recompute)
    return y_TD


def rows(
    x_AD: Tensor,
    weight_A: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    offsets_E: Tensor,
    recompute: bool = False,
) -> Tensor:
    """The weighted output of every row's expert, (A, D); see `Backend.rows`."""
    y_AD: Tensor = _Rows.apply(x_AD, weight_A, w13_EID, w2_EDI, offsets_E, recompute)
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
    ) -> Tensor:
        ctx.dtype = dtype = compute_dtype(x_TD)
        ctx.dispatch = dispatch
        ctx.bounds = dispatch.offsets_E.tolist()  # the one wait for the device, for forward and backward
        h13_AI, y_AD = _forward(
            lambda rows: x_TD[dispatch.tokens_A[rows]].to(dtype),
            w13_EID,
            w2_EDI,
            ctx.bounds,
            dtype,
            recompute,
        )
        ctx.save_for_backward(x_TD, weights_TK, w13_EID, w2_EDI, h13_AI)
        return weighted_sum(y_AD, dispatch.inverse_TK, weights_TK).to(x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_TK, w13_EID, w2_EDI, h13_AI = ctx.saved_tensors
        dtype, tokens_A = ctx.dtype, ctx.dispatch.tokens_A
        dx_AD, dweight_A, dw13_EID, dw2_EDI = _backward(
            lambda rows: x_TD[tokens_A[rows]].to(dtype),
            lambda rows: dy_TD[tokens_A[rows]].to(dtype),
            sort_weights(weights_TK, ctx.dispatch),
            w13_EID,
            w2_EDI,
            h13_AI,
            ctx.bounds,
            dtype,
        )
        dx_TD = weighted_sum(dx_AD, ctx.dispatch.inverse_TK, weights_TK).to(x_TD.dtype)
        return dx_TD, dweight_A[ctx.dispatch.inverse_TK], dw13_EID, dw2_EDI, None, None


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
    ) -> Tensor:
        ctx.dtype = dtype = compute_dtype(x_AD)
        ctx.bounds = offsets_E.tolist()  # the one wait for the device
        h13_AI, y_AD = _forward(
            lambda rows: x_AD[rows].to(dtype), w13_EID, w2_EDI, ctx.bounds, dtype, recompute
        )
        ctx.save_for_backward(x_AD, weight_A, w13_EID, w2_EDI, h13_AI)
        return y_AD.mul_(weight_A.to(dtype).unsqueeze(1)).to(x_AD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_AD: Tensor) -> tuple[Tensor | None, ...]:
        x_AD, weight_A, w13_EID, w2_EDI, h13_AI = ctx.saved_tensors
        dx_AD, dweight_A, dw13_EID, dw2_EDI = _backward(
            lambda rows: x_AD[rows].to(ctx.dtype, copy=True),
            lambda rows: dy_AD[rows].to(ctx.dtype, copy=True),
            weight_A,
            w13_EID,
            w2_EDI,
            h13_AI,
            ctx.bounds,
            ctx.dtype,
        )
        dx_AD = dx_AD.mul_(weight_A.to(ctx.dtype).unsqueeze(1)).to(x_AD.dtype)
        return dx_AD, dweight_A, dw13_EID, dw2_EDI, None, None


def _forward(
    x_of: RowsOf, w13_EID: Tensor, w2_EDI: Tensor, bounds: list[int], dtype: torch.dtype, recompute: bool
) -> tuple[Tensor | None, Tensor]:
    """h13, (A, 2I), unless it is recomputed, and the outputs of all rows before weighting, (A, D)."""
    A = bounds[-1]
    h13_AI = None if recompute else w13_EID.new_empty(A, w13_EID.size(1), dtype=dtype)
    y_AD = w2_EDI.new_empty(A, w2_EDI.size(1), dtype=dtype)
    with torch.autocast(w13_EID.device.type, enabled=False):
        for e, rows in _segments(bounds):
            x_ND = x_of(rows)
            h13_NI = torch.mm(x_ND, w13_EID[e].to(dtype).T, out=None if h13_AI is None else h13_AI[rows])
            torch.mm(swiglu(h13_NI), w2_EDI[e].to(dtype).T, out=y_AD[rows])
            del x_ND, h13_NI  # or they would stay while those of the next expert are made
    return h13_AI, y_AD


def _backward(
    x_of: RowsOf,
    dy_of: RowsOf,
    weight_A: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    h13_AI: Tensor | None,
    bounds: list[int],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the rows, (A, D), still to be weighted, of their weights, (A,), and of both stacks.

    `x_of` and `dy_of` give copies, which are written over. `dy_of` gives the gradient of the weighted outputs.
    """
    dweight_A = torch.zeros_like(weight_A)
    dx_AD = w13_EID.new_empty(weight_A.numel(), w13_EID.size(2), dtype=dtype)
    dw13_EID, dw2_EDI = torch.empty_like(w13_EID), torch.empty_like(w2_EDI)
    with torch.autocast(w13_EID.device.type, enabled=False):
        for e, rows in _segments(bounds):
            if rows.start == rows.stop:
                dw13_EID[e].zero_()
                dw2_EDI[e].zero_()
                continue
            weight_N1 = weight_A[rows, None].to(dtype)
            x_ND, dy_ND = x_of(rows), dy_of(rows)
            da_NI = dy_ND @ w2_EDI[e].to(dtype)  # what an output of weight 1 sends to the activation
            h13_NI = x_ND @ w13_EID[e].to(dtype).T if h13_AI is None else h13_AI[rows]
            a_NI, dh13_NI = swiglu_backward(da_NI, h13_NI)
            torch.sum(da_NI.mul_(a_NI), dim=1, dtype=dweight_A.dtype, out=dweight_A[rows])
            torch.mm(dh13_NI, w13_EID[e].to(dtype), out=dx_AD[rows])
            # weighted here, where rows are narrow, and by the caller in dx, and nowhere else
            _mm_into(dw2_EDI[e], dy_ND.mul_(weight_N1).T, a_NI)
            _mm_into(dw13_EID[e], dh13_NI.T, x_ND.mul_(weight_N1))
            del x_ND, dy_ND, da_NI, a_NI, h13_NI, dh13_NI
    return dx_AD, dweight_A, dw13_EID, dw2_EDI


def _segments(bounds: list[int]) -> Iterator[tuple[int, slice]]:
    """Each expert with the slice of its rows."""
    return (
        (e, slice(start, stop)) for e, (start, stop) in enumerate(zip([0, *bounds], bounds, strict=False))
    )


def _mm_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """`out = a @ b`, rounded to the type of `out` where autocast multiplied in a narrower one."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)
