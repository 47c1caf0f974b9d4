"""Dispatch: the tokens' rows sorted by expert, and the way back.

Shape suffixes: T tokens, K experts per token, E experts, D model width, A dispatched rows: the T*K assignments
sorted by expert, and padding where the products want it.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Dispatch(NamedTuple):
    """Where the dispatched rows come from and go to; made once per layer."""

    tokens_A: Tensor
    """Token of each row. Rows are grouped by expert and, within an expert, in the order of the tokens."""
    inverse_TK: Tensor
    """Row of each assignment."""
    offsets_E: Tensor
    """Row after the last one of each expert, int32; expert e owns rows offsets[e-1]..offsets[e]-1."""


def group_by_expert(ids_TK: Tensor, rows_E: Tensor, row_multiple: int = 1) -> Dispatch:
    """Group the assignments by expert: a stable sort, and its inverse.

    Args:
        ids_TK: the experts of each token, int64.
        rows_E: assignments per expert, int64.
        row_multiple: rounds every expert's rows up with rows of token 0 that no assignment points to. They have
            weight 0 (:func:`sort_weights`), so they add nothing. Rounding waits for the device once.
    """
    T, K = ids_TK.shape
    order_A = ids_TK.flatten().argsort(stable=True)
    rows_A = torch.arange(T * K, device=ids_TK.device)
    tokens_A = order_A // K
    if row_multiple > 1:
        padding = [-count % row_multiple for count in rows_E.tolist()]
        before_E = ids_TK.new_tensor([0, *accumulate(padding[:-1])])
        rows_A = rows_A + before_E.repeat_interleave(rows_E, output_size=T * K)
        rows_E = rows_E + ids_TK.new_tensor(padding)
        tokens_A = tokens_A.new_zeros(T * K + sum(padding)).index_copy_(0, rows_A, tokens_A)
    inverse_TK = torch.empty_like(order_A).index_copy_(0, order_A, rows_A).view(T, K)
    return Dispatch(tokens_A, inverse_TK, offsets_E=rows_E.cumsum(0).to(torch.int32))


def sort_weights(weights_TK: Tensor, dispatch: Dispatch) -> Tensor:
    """Weight of each row, (A,), differentiable; 0 for rows of padding, which so add nothing."""
    weight_A = weights_TK.new_zeros(dispatch.tokens_A.numel())
    return weight_A.index_put_((dispatch.inverse_TK,), weights_TK)


def gather(x_TD: Tensor, dispatch: Dispatch) -> Tensor:
    """The row of each assignment, (A, D), differentiable. Rows of padding hold token 0."""
    x_AD: Tensor = _Gather.apply(x_TD, dispatch)
    return x_AD


def combine(y_AD: Tensor, dispatch: Dispatch) -> Tensor:
    """The sum of each token's K rows, which have their weights in them, (T, D), differentiable."""
    y_TD: Tensor = _Combine.apply(y_AD, dispatch)
    return y_TD


def weighted_sum(y_AD: Tensor, inverse_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """`sum_k weight_tk * y[row of (t, k)]`, (T, D), in the type of the weights (fp32 or fp64).

    It gathers rows in a fixed order instead of adding into them, so two runs agree to the bit.
    """
    y_TD = y_AD[inverse_TK[:, 0]] * weights_TK[:, :1]
    for k in range(1, inverse_TK.size(1)):
        y_TD.addcmul_(y_AD[inverse_TK[:, k]], weights_TK[:, k, None])
    return y_TD


def _plain_sum(y_AD: Tensor, inverse_TK: Tensor) -> Tensor:
    """`sum_k y[row of (t, k)]`, added in at least fp32, in the type of `y_AD`."""
    y_TD = y_AD[inverse_TK[:, 0]].to(torch.promote_types(y_AD.dtype, torch.float32))
    for k in range(1, inverse_TK.size(1)):
        y_TD.add_(y_AD[inverse_TK[:, k]])
    return y_TD.to(y_AD.dtype)


class _Gather(torch.autograd.Function):
    """`x[tokens]`. Autograd's own backward adds into rows, on CUDA in an order that differs each time."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, dispatch: Dispatch) -> Tensor:
        ctx.dispatch = dispatch
        return x_TD[dispatch.tokens_A]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx_AD: Tensor) -> tuple[Tensor, None]:
        return _plain_sum(dx_AD, ctx.dispatch.inverse_TK), None


class _Combine(torch.autograd.Function):
    """The sum over K; in the backward every row gets its token's gradient, and padding a zero."""

    @staticmethod
    def forward(ctx: Any, y_AD: Tensor, dispatch: Dispatch) -> Tensor:
        ctx.dispatch = dispatch
        return _plain_sum(y_AD, dispatch.inverse_TK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor, None]:
        tokens_A, inverse_TK = ctx.dispatch.tokens_A, ctx.dispatch.inverse_TK
        if tokens_A.numel() == inverse_TK.numel():
            return dy_TD[tokens_A], None
        dy_AD = dy_TD.new_zeros(tokens_A.numel(), dy_TD.size(1))
        return dy_AD.index_put_((inverse_TK,), dy_TD.unsqueeze(1)), None
