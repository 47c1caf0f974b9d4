"""Cross-entropy of a linear head without the logits of all tokens in memory at once.

Shape suffixes: T tokens, C tokens of one chunk, D model width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from litmoe.model.precision import compute_dtype


def linear_cross_entropy(
    x_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    ignore_index: int = -100,
    chunk: int = 256,
    bias: Tensor | None = None,
    softcap: float | None = None,
    z_coefficient: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The loss of a linear head, and the cross-entropy in it, detached; both fp32 scalars.

    Logits exist for `chunk` tokens at a time: the gradient is computed in the forward, where they are at
    hand, which is faster than computing them again in the backward. Without grad mode neither gradient nor
    z-loss is computed. Products run in the type of autocast; log-sum-exp, loss and the sum of the weight's
    gradient over chunks are in fp32 (fp64 for fp64).

    Args:
        x_TD: hidden states.
        weight_VD: of the head.
        targets_T: int64 ids.
        ignore_index: the target that does not count; if there is no other, the loss is 0.
        chunk: tokens whose logits exist at once.
        bias: (V,), of the head.
        softcap: the logits become `softcap * tanh(logits / softcap)`.
        z_coefficient: of the z-loss of PaLM (arXiv 2204.02311, with 1e-4), the mean of `logsumexp(logits)**2`,
            which keeps logits from drifting; it is added to the loss.

    Returns:
        The loss, and the mean over the targets of `cross_entropy(x @ weight.T + bias, targets)`.
    """
    wants_grad = torch.is_grad_enabled() and (x_TD.requires_grad or weight_VD.requires_grad)
    if not wants_grad:
        losses_T = token_losses(x_TD, weight_VD, targets_T, ignore_index, chunk, bias, softcap)
        mean = losses_T.sum() / (targets_T != ignore_index).sum().clamp(min=1)
        return mean, mean
    losses: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(
        x_TD, weight_VD, bias, targets_T, ignore_index, chunk, softcap, z_coefficient
    )
    return losses


@torch.no_grad()
def token_losses(
    x_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    ignore_index: int = -100,
    chunk: int = 256,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Cross-entropy of every token in nats, (T,), fp32, without a graph; 0 at ignored targets."""
    weight_VD = weight_VD.to(compute_dtype(x_TD))
    losses = []
    for x_CD, targets_C in zip(x_TD.split(chunk), targets_T.split(chunk), strict=True):
        log_p_CV = F.log_softmax(_logits(x_CD, weight_VD, bias, softcap), dim=-1)
        losses.append(F.nll_loss(log_p_CV, targets_C, ignore_index=ignore_index, reduction="none"))
    return torch.cat(losses)


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and gradients chunk by chunk, in the forward; the backward only scales them.

    The gradients are kept as sums over tokens and divided by their number in the backward: in fp16 the small ones
    of a mean would be rounded to zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_T: Tensor,
        ignore_index: int,
        chunk: int,
        softcap: float | None,
        z_coefficient: float,
    ) -> tuple[Tensor, Tensor]:
        w_VD = weight_VD.to(compute_dtype(x_TD))
        sum_dtype = torch.promote_types(w_VD.dtype, torch.float32)
        dx_TD = torch.empty_like(x_TD)
        dw_VD = torch.zeros_like(weight_VD, dtype=sum_dtype)
        db_V = None if bias_V is None else torch.zeros_like(bias_V, dtype=sum_dtype)
        losses, z_sum = [], torch.zeros((), dtype=sum_dtype, device=x_TD.device)
        for x_CD, targets_C, dx_CD in zip(
            x_TD.split(chunk), targets_T.split(chunk), dx_TD.split(chunk), strict=True
        ):
            # the loss
            logits_CV = _logits(x_CD, w_VD, bias_V, softcap)
            d_CV = F.log_softmax(logits_CV, dim=-1)
            losses.append(F.nll_loss(d_CV, targets_C, ignore_index=ignore_index, reduction="none"))
            counts_C1 = (targets_C != ignore_index).unsqueeze(1)
            if z_coefficient:
                lse_C1 = logits_CV.logsumexp(1, keepdim=True)
                z_sum += (lse_C1.square() * counts_C1).sum()
            # its gradient with respect to the logits, in place of their log-probabilities
            d_CV.exp_()
            if z_coefficient:  # d(lse**2) = 2 lse softmax
                d_CV.mul_(1 + 2 * z_coefficient * lse_C1)
            d_CV.scatter_add_(1, targets_C.unsqueeze(1) * counts_C1, -counts_C1.to(d_CV.dtype))
            d_CV.mul_(counts_C1)
            if softcap is not None:
                d_CV.mul_(1 - (logits_CV / softcap).square())
            del logits_CV  # or two chunks of logits would be alive at once
            # and with respect to the bias, the hidden states and the weight
            if db_V is not None:
                db_V += d_CV.sum(0)
            with torch.autocast(x_TD.device.type, enabled=False):
                d_CV = d_CV.to(w_VD.dtype)
                dx_CD.copy_(d_CV @ w_VD)
                if w_VD.dtype == sum_dtype:
                    dw_VD.addmm_(d_CV.T, x_CD.to(w_VD.dtype))
                else:
                    dw_VD += d_CV.T @ x_CD.to(w_VD.dtype)
        n_targets = (targets_T != ignore_index).sum().clamp(min=1)
        ctx.save_for_backward(dx_TD, dw_VD.to(weight_VD.dtype), db_V, n_targets)
        cross_entropy = torch.cat(losses).sum() / n_targets
        loss = cross_entropy + z_coefficient * z_sum / n_targets
        ctx.mark_non_differentiable(cross_entropy)
        return loss, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        dx_TD, dw_VD, db_V, n_targets = ctx.saved_tensors
        scale = dloss / n_targets
        db_V = None if db_V is None else db_V * scale
        return dx_TD * scale, dw_VD * scale, db_V, None, None, None, None, None


def _logits(x_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None) -> Tensor:
    """Logits of one chunk in fp32 (fp64 for fp64), multiplied in the type of the weight."""
    dtype = weight_VD.dtype
    with torch.autocast(x_CD.device.type, enabled=False):
        bias = None if bias_V is None else bias_V.to(dtype)
        logits_CV = F.linear(x_CD.to(dtype), weight_VD, bias).to(torch.promote_types(dtype, torch.float32))
    return logits_CV if softcap is None else torch.tanh(logits_CV / softcap) * softcap
