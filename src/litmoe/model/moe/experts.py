"""Expert MLPs on stacked weights: SwiGLU with a backward written by hand.

Letters: T tokens, K experts per token, E experts, D model width, I expert width, A dispatched rows,
N the rows of one expert. `w13_EID` is (E, 2I, D), the rows of fc_1 above those of fc_2; `h13_AI`, its
product, is (A, 2I); `w2_EDI` is (E, D, I).
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from litmoe.model.moe.routing import DispatchPlan
from litmoe.model.precision import compute_dtype

Backend = Literal["loop", "grouped"]


class _LoopExperts(torch.autograd.Function):
    """`y_t = sum_k weight_tk * w2[e] (silu(w1[e] x_t) * w3[e] x_t)` with e the k-th expert of token t.

    Expert by expert, on any device and in any type. Kept for the backward: the input, h13 and the routing.
    The activation A is worked out again, and outputs are not needed: the gradient of a weight is the row sum
    of dA * A (SonicMoE, arXiv 2512.14080), with dA what an output of weight 1 would send to A. With `recompute`
    h13 is worked out again too, by the same products and so to the same bits: 2 of a layer's 9 products more.

    Autograd never sees the stacks being indexed: it would allocate a zero stack per expert. Sums over K
    gather rows in a fixed order instead of adding into them, so two runs agree to the bit. Every expert's
    gradient is written, zeros included: DDP waits for all of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weights_TK: Tensor,
        w13_EID: Tensor,
        w2_EDI: Tensor,
        plan: DispatchPlan,
        recompute: bool = False,
    ) -> Tensor:
        ctx.dtype = dtype = compute_dtype(x_TD)
        ctx.plan = plan
        ctx.bounds = plan.offsets_E.tolist()  # the one wait for the device, for forward and backward
        A = plan.tokens_A.numel()
        h13_AI = None if recompute else x_TD.new_empty(A, w13_EID.size(1), dtype=dtype)
        y_AD = x_TD.new_empty(A, x_TD.size(1), dtype=dtype)
        with torch.autocast(x_TD.device.type, enabled=False):
            for e, rows in _segments(ctx.bounds):
                x_ND = x_TD[plan.tokens_A[rows]].to(dtype)
                h13_NI = torch.mm(x_ND, w13_EID[e].to(dtype).T, out=None if h13_AI is None else h13_AI[rows])
                torch.mm(_swiglu(h13_NI), w2_EDI[e].to(dtype).T, out=y_AD[rows])
                del x_ND, h13_NI  # or they would stay while those of the next expert are made
        ctx.save_for_backward(x_TD, weights_TK, w13_EID, w2_EDI, h13_AI)
        return _combine(y_AD, plan.inverse_TK, weights_TK).to(x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_TK, w13_EID, w2_EDI, h13_AI = ctx.saved_tensors
        dtype, plan = ctx.dtype, ctx.plan
        weight_A = _sorted_weights(weights_TK, plan)
        dweight_A = torch.zeros_like(weight_A)
        dx_AD = x_TD.new_empty(weight_A.numel(), x_TD.size(1), dtype=dtype)
        dw13_EID, dw2_EDI = torch.empty_like(w13_EID), torch.empty_like(w2_EDI)
        with torch.autocast(x_TD.device.type, enabled=False):
            for e, rows in _segments(ctx.bounds):
                if rows.start == rows.stop:
                    dw13_EID[e].zero_()
                    dw2_EDI[e].zero_()
                    continue
                tokens_N, weight_N1 = plan.tokens_A[rows], weight_A[rows, None].to(dtype)
                x_ND, dy_ND = x_TD[tokens_N].to(dtype), dy_TD[tokens_N].to(dtype)
                da_NI = dy_ND @ w2_EDI[e].to(dtype)
                h13_NI = x_ND @ w13_EID[e].to(dtype).T if h13_AI is None else h13_AI[rows]
                a_NI, dh13_NI = _swiglu_backward(da_NI, h13_NI)
                torch.sum(da_NI.mul_(a_NI), dim=1, dtype=dweight_A.dtype, out=dweight_A[rows])
                torch.mm(dh13_NI, w13_EID[e].to(dtype), out=dx_AD[rows])
                # weighted here, where rows are narrow, and in _combine, and nowhere else
                _mm_into(dw2_EDI[e], dy_ND.mul_(weight_N1).T, a_NI)
                _mm_into(dw13_EID[e], dh13_NI.T, x_ND.mul_(weight_N1))
                del x_ND, dy_ND, da_NI, a_NI, h13_NI, dh13_NI
        dx_TD = _combine(dx_AD, plan.inverse_TK, weights_TK).to(x_TD.dtype)
        return dx_TD, dweight_A[plan.inverse_TK], dw13_EID, dw2_EDI, None, None


class _GroupedExperts(torch.autograd.Function):
    """The same with one grouped product for all experts and no wait for the device.

    Fast in bf16 on compute capability 9 and 10 only. The stacks are multiplied in the type of the input, so
    under autocast they are cast whole.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weights_TK: Tensor,
        w13_EID: Tensor,
        w2_EDI: Tensor,
        plan: DispatchPlan,
        recompute: bool = False,
    ) -> Tensor:
        ctx.dtype = dtype = compute_dtype(x_TD)
        ctx.plan, offsets_E = plan, plan.offsets_E
        with torch.autocast(x_TD.device.type, enabled=False):
            x_AD = x_TD.to(dtype)[plan.tokens_A]
            h13_AI = F.grouped_mm(x_AD, w13_EID.to(dtype).mT, offs=offsets_E)
            y_AD = F.grouped_mm(_swiglu(h13_AI), w2_EDI.to(dtype).mT, offs=offsets_E)
        ctx.save_for_backward(x_TD, weights_TK, w13_EID, w2_EDI, None if recompute else h13_AI)
        return _combine(y_AD, plan.inverse_TK, weights_TK).to(x_TD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weights_TK, w13_EID, w2_EDI, h13_AI = ctx.saved_tensors
        dtype, plan, offsets_E = ctx.dtype, ctx.plan, ctx.plan.offsets_E
        weight_A1 = _sorted_weights(weights_TK, plan).unsqueeze(1).to(dtype)
        with torch.autocast(x_TD.device.type, enabled=False):
            x_AD = x_TD.to(dtype)[plan.tokens_A]
            if h13_AI is None:
                h13_AI = F.grouped_mm(x_AD, w13_EID.to(dtype).mT, offs=offsets_E)
            dy_AD = dy_TD.to(dtype)[plan.tokens_A]
            da_AI = F.grouped_mm(dy_AD, w2_EDI.to(dtype), offs=offsets_E)
            a_AI, dh13_AI = _swiglu_backward(da_AI, h13_AI)
            dweight_A = da_AI.mul_(a_AI).sum(1, dtype=weights_TK.dtype)
            dx_AD = F.grouped_mm(dh13_AI, w13_EID.to(dtype), offs=offsets_E)
            dw2_EDI = F.grouped_mm(dy_AD.mul_(weight_A1).T, a_AI, offs=offsets_E).to(w2_EDI.dtype)
            dw13_EID = F.grouped_mm(dh13_AI.T, x_AD.mul_(weight_A1), offs=offsets_E).to(w13_EID.dtype)
        dx_TD = _combine(dx_AD, plan.inverse_TK, weights_TK).to(x_TD.dtype)
        return dx_TD, dweight_A[plan.inverse_TK], dw13_EID, dw2_EDI, None, None


def choose_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """How to multiply in `dtype`: grouped where PyTorch has a kernel for it, else expert by expert."""
    if device.type == "cuda" and dtype == torch.bfloat16 and torch.version.hip is None:
        return "grouped" if torch.cuda.get_device_capability(device)[0] in (9, 10) else "loop"
    return "loop"


def row_multiple(x_TD: Tensor) -> int:
    """To what multiple to round the rows of every expert.

    In bf16 on a CPU oneDNN prepares a primitive for every new shape, and token counts are new each step:
    rounding to 32 made whole steps 1.34 to 1.43 times as fast. In fp32 it costs 6 to 9 %.
    """
    return 32 if x_TD.device.type == "cpu" and compute_dtype(x_TD) == torch.bfloat16 else 1


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


def _swiglu(h13_NI: Tensor) -> Tensor:
    h1_NI, h3_NI = h13_NI.chunk(2, dim=1)
    return F.silu(h1_NI).mul_(h3_NI)


def _swiglu_backward(da_NI: Tensor, h13_NI: Tensor) -> tuple[Tensor, Tensor]:
    """The activation again, and the gradient of `h13_NI`; `da_NI` stays as it is."""
    h1_NI, h3_NI = h13_NI.chunk(2, dim=1)
    dh13_NI = torch.empty_like(h13_NI)
    dh1_NI, dh3_NI = dh13_NI.chunk(2, dim=1)
    silu_NI = F.silu(h1_NI)
    torch.mul(da_NI, silu_NI, out=dh3_NI)
    torch.mul(da_NI, h3_NI, out=dh1_NI)
    torch.ops.aten.silu_backward.grad_input(dh1_NI, h1_NI, grad_input=dh1_NI)
    return silu_NI.mul_(h3_NI), dh13_NI


def _sorted_weights(weights_TK: Tensor, plan: DispatchPlan) -> Tensor:
    """Weight of every row of the dispatched buffer; 0 for rows of padding, which so add nothing."""
    return weights_TK.new_zeros(plan.tokens_A.numel()).index_put_((plan.inverse_TK,), weights_TK)


def _combine(y_AD: Tensor, inverse_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """`sum_k weight_tk * y[row of (t, k)]` in the type of the weights (fp32 or fp64)."""
    y_TD = y_AD[inverse_TK[:, 0]] * weights_TK[:, :1]
    for k in range(1, inverse_TK.size(1)):
        y_TD.addcmul_(y_AD[inverse_TK[:, k]], weights_TK[:, k, None])
    return y_TD


class Experts(nn.Module):
    """E SwiGLU MLPs, stored as two stacks and known to a state dict by LitGPT's names, expert by expert."""

    recompute: bool = False
    """Training: keep only the input, and work the pre-activations out again in the backward."""
    backend: Backend | None = None
    """How to multiply; None: what :func:`choose_backend` says of the device and type of the input."""

    def __init__(self, n_expert: int, n_embd: int, width: int) -> None:
        super().__init__()
        self.w13_EID = nn.Parameter(torch.empty(n_expert, 2 * width, n_embd))
        self.w2_EDI = nn.Parameter(torch.empty(n_expert, n_embd, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As E times three `nn.Linear`."""
        for weight in (self.w13_EID, self.w2_EDI):
            bound = 1 / math.sqrt(weight.size(-1))
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x_TD: Tensor, weights_TK: Tensor, plan: DispatchPlan) -> Tensor:
        """Weighted sum of every token's experts, (T, D), in the type of `x_TD`."""
        backend = self.backend or choose_backend(x_TD.device, compute_dtype(x_TD))
        function = _GroupedExperts if backend == "grouped" else _LoopExperts
        y_TD: Tensor = function.apply(x_TD, weights_TK, self.w13_EID, self.w2_EDI, plan, self.recompute)
        return y_TD

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        stacks: dict[str, Tensor] = {}
        super()._save_to_state_dict(stacks, prefix, keep_vars)
        destination.update(unstack(stacks[f"{prefix}w13_EID"], stacks[f"{prefix}w2_EDI"], prefix))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Stack the experts found under LitGPT's names and load the stacks.

        What is missing or of the wrong shape is reported by LitGPT's name and keeps the value it has.
        """
        own = unstack(self.w13_EID.detach(), self.w2_EDI.detach(), prefix)
        found = {}
        for key, value in own.items():
            given = state_dict.pop(key, None)
            if given is None:
                missing_keys.append(key)
            elif given.shape != value.shape:
                shapes = f"{tuple(given.shape)} in the checkpoint, {tuple(value.shape)} in the model"
                error_msgs.append(f"size mismatch for {key}: {shapes}")
            else:
                found[key] = given
        if len(found) == len(own) or (found and not self.w13_EID.is_meta):
            state_dict[f"{prefix}w13_EID"], state_dict[f"{prefix}w2_EDI"] = stack(own | found, prefix)
        else:
            strict = False  # all that is missing has been named above
        args = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *args)


def unstack(w13_EID: Tensor, w2_EDI: Tensor, prefix: str) -> dict[str, Tensor]:
    """The stacks as LitGPT names them, `{prefix}{e}.fc_1.weight` and so on; views, no copies."""
    experts: dict[str, Tensor] = {}
    for e, (w13_ID, w2_DI) in enumerate(zip(w13_EID, w2_EDI, strict=True)):
        fc_1_ID, fc_2_ID = w13_ID.chunk(2)
        experts[f"{prefix}{e}.fc_1.weight"] = fc_1_ID
        experts[f"{prefix}{e}.fc_2.weight"] = fc_2_ID
        experts[f"{prefix}{e}.proj.weight"] = w2_DI
    return experts


def stack(experts: dict[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """The inverse of `unstack`, for a dictionary that holds every expert; copies."""
    n_expert = len(experts) // 3
    fc_1 = [experts[f"{prefix}{e}.fc_1.weight"] for e in range(n_expert)]
    fc_2 = [experts[f"{prefix}{e}.fc_2.weight"] for e in range(n_expert)]
    proj = [experts[f"{prefix}{e}.proj.weight"] for e in range(n_expert)]
    halves = [half for pair in zip(fc_1, fc_2, strict=True) for half in pair]
    return torch.cat(halves).view(n_expert, -1, fc_1[0].size(1)), torch.stack(proj)
