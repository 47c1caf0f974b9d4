"""One token chosen from logits."""

import torch
from torch import Tensor

from litmoe.errors import CheckpointError


def choose(
    logits_V: Tensor, temperature: float, top_k: int | None, top_p: float, generator: torch.Generator | None
) -> int:
    """One token id, drawn on the CPU in fp32 so that devices agree.

    Args:
        logits_V: logits over the vocabulary, (V,).
        temperature: 0 takes the likeliest token; else logits are divided by it.
        top_k: keep the k likeliest tokens; None, or more than there are: all.
        top_p: then keep the likeliest tokens that together have this probability (arXiv 1904.09751).
        generator: where the random number comes from; the same state gives the same token.

    Raises:
        CheckpointError: the logits are not numbers, so the weights are not either.
    """
    logits_V = logits_V.float().cpu()
    if temperature == 0:
        token = int(logits_V.argmax())  # of the first NaN, if there is one
        _refuse_nan(logits_V[token])
        return token
    logits_K, ids_K = torch.topk(logits_V, min(top_k or logits_V.numel(), logits_V.numel()))
    _refuse_nan(logits_K[0])  # NaN counts as the largest
    scaled_K = logits_K / temperature
    if not scaled_K[0].isfinite():  # a temperature next to 0: only differences can be divided by it
        scaled_K = (logits_K - logits_K[0]) / temperature
    probs_K = torch.softmax(scaled_K, dim=0)
    if top_p < 1:
        before_K = probs_K.cumsum(0) - probs_K  # the likeliest token is always kept
        probs_K = torch.where(before_K < top_p, probs_K, 0.0)
    return int(ids_K[torch.multinomial(probs_K, 1, generator=generator)])


def _refuse_nan(largest: Tensor) -> None:
    if not largest.isfinite():
        raise CheckpointError(
            "the model gives logits that are not finite: its weights have diverged; use an earlier checkpoint"
        )
