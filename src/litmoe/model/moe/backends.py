"""How experts are multiplied: the contract of a backend, all backends by name, and the choice among them.

Shape suffixes: T tokens, K experts per token, E experts, D model width, I expert width, A dispatched rows.
`w13_EID` is (E, 2I, D), the rows of fc_1 above those of fc_2; `h13_AI`, its product, is (A, 2I); `w2_EDI` is
(E, D, I). Expert e computes `w2[e] (silu(w1[e] x) * w3[e] x)`.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from litmoe.model.moe import grouped, loop
from litmoe.model.moe.dispatch import Dispatch, combine, gather, sort_weights
from litmoe.model.precision import compute_dtype

BackendName = Literal["loop", "grouped"]

Fused = Callable[[Tensor, Tensor, Tensor, Tensor, Dispatch, bool], Tensor]
Rows = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, bool], Tensor]


class Backend(NamedTuple):
    """A way to multiply, in two forms that give the same values and gradients up to rounding.

    Both are differentiable in all floating-point tensors, multiply in the type that autocast asks for, and repeat
    to the bit. With `recompute` they do not keep h13 but compute it again in the backward, by the same products
    and so to the same bits: 2 more than a layer's 9 products.

    The gradient of a weight is the row sum of dA * A (SonicMoE, arXiv 2512.14080), where dA is what an output of
    weight 1 would send to the activation A. So outputs need not be kept, and A is computed again from h13.
    """

    fused: Fused
    """(x_TD, weights_TK, w13_EID, w2_EDI, dispatch, recompute) -> y_TD: one layer on one device.

    `y_t = sum_k weight_tk * expert(x_t)` over the experts of token t, in the type of `x_TD`. Keeps `x_TD` and not
    its A rows.
    """
    rows: Rows
    """(x_AD, weight_A, w13_EID, w2_EDI, offsets_E, recompute) -> y_AD: the products alone.

    `y_a = weight_a * expert(x_a)` in the type of `x_AD`, for rows sorted by expert; `offsets_E`, int32, says where
    each expert's rows end. Rows come with their weight: were they weighted after their way back from another
    process, all outputs would have to be kept there for the gradient of the weights.
    """
    alignment: int = 1
    """Rows of inputs and weights must be multiples of so many bytes."""


BACKENDS: dict[BackendName, Backend] = {
    "loop": Backend(loop.fused, loop.rows),
    "grouped": Backend(grouped.fused, grouped.rows, alignment=16),
}


def by_rows(
    rows: Rows,
    x_TD: Tensor,
    weights_TK: Tensor,
    w13_EID: Tensor,
    w2_EDI: Tensor,
    dispatch: Dispatch,
    recompute: bool = False,
) -> Tensor:
    """The layer by a backend's row form: a `Fused` for a kernel that has none.

    It keeps the A gathered rows instead of `x_TD`. An exchange between ranks stands before and after `rows`.
    """
    x_AD, weight_A = gather(x_TD, dispatch), sort_weights(weights_TK, dispatch)
    return combine(rows(x_AD, weight_A, w13_EID, w2_EDI, dispatch.offsets_E, recompute), dispatch)


def choose_backend(device: torch.device, dtype: torch.dtype, *widths: int) -> BackendName:
    """The backend for matrices of these widths in `dtype`: grouped where PyTorch has a kernel, else loop."""
    if device.type != "cuda" or dtype != torch.bfloat16 or torch.version.hip is not None:
        return "loop"
    if any(width * dtype.itemsize % BACKENDS["grouped"].alignment for width in widths):
        return "loop"
    return "grouped" if torch.cuda.get_device_capability(device)[0] in (9, 10) else "loop"


def row_multiple(x_TD: Tensor) -> int:
    """To what multiple to round the rows of every expert.

    In bf16 on a CPU oneDNN prepares a primitive for every new shape, and token counts are new each step:
    rounding to 32 made whole steps 1.34 to 1.43 times as fast. In fp32 it costs 6 to 9 %.
    """
    return 32 if x_TD.device.type == "cpu" and compute_dtype(x_TD) == torch.bfloat16 else 1
