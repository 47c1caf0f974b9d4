"""Balance: losses and a bias that keep the tokens spread over the experts.

Shape suffixes: T tokens, E experts.
"""

import torch
from torch import Tensor


def switch_loss(p_E: Tensor, load_E: Tensor | None = None) -> Tensor:
    """Balance loss of Switch Transformers (arXiv 2101.03961): `E * sum_e f_e p_e`, 1.0 at balance.

    Args:
        p_E: mean router probabilities, (..., E).
        load_E: assignments per expert, (..., E). f is each expert's share of them; without any (None, or all
            zero) f is uniform, and the loss 1.0 without a gradient.

    Returns:
        The loss, (...).
    """
    n_expert = p_E.size(-1)
    if load_E is None:
        return p_E.sum(-1)
    total = load_E.sum(-1, keepdim=True)
    f_E = torch.where(total > 0, load_E / total.clamp(min=1), 1 / n_expert)
    return n_expert * (f_E * p_E).sum(-1)


def z_loss(logits_TE: Tensor, counted_T: Tensor | None = None) -> Tensor:
    """Router z-loss of ST-MoE (arXiv 2202.08906): mean over tokens of `logsumexp(logits)**2`, a scalar.

    It keeps logits small; (log E)**2 when all are zero. For `counted_T` see :func:`token_mean`.
    """
    return token_mean(logits_TE.logsumexp(-1).square(), counted_T)


def token_mean(values_T: Tensor, counted_T: Tensor | None = None) -> Tensor:
    """Mean over the first dimension, the tokens; 0 if none counts.

    Args:
        values_T: of shape (T, ...).
        counted_T: bool; the tokens that count. None: all of them.
    """
    if counted_T is None:
        return values_T.mean(0)
    counted = counted_T.view(-1, *[1] * (values_T.dim() - 1))
    return torch.where(counted, values_T, 0).sum(0) / counted_T.sum().clamp(min=1)


@torch.no_grad()
def update_correction_bias(bias_E: Tensor, counts_E: Tensor, speed: float) -> None:
    """One step of loss-free balancing (arXiv 2408.15664), in place: `bias += speed * sign(mean - counts)`.

    `counts_E` are the assignments of the whole last global batch. Keep the bias in fp32: in bf16 steps of
    0.001 are lost as soon as it passes 0.25.
    """
    counts_E = counts_E.to(torch.float32)
    bias_E.add_((counts_E.mean() - counts_E).sign().to(bias_E.dtype), alpha=speed)
