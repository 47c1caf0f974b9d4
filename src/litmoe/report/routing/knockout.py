"""How much the loss rises without an expert: it may not be chosen, and its tokens go to their next best.

Shape suffixes: B windows, T tokens, D model width, E experts, K experts per token, W windows.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litmoe.inference.loading import LoadedModel
from litmoe.model.gpt import GPT, attend
from litmoe.model.moe.backends import row_multiple
from litmoe.model.moe.dispatch import group_by_expert
from litmoe.model.moe.layer import MoE
from litmoe.model.moe.router import choose_experts, router_logits, router_scores
from litmoe.report.routing.figures import Knockout
from litmoe.report.routing.observe import batches, moe_blocks, window_losses

_CONFIDENCE = 0.95


@torch.no_grad()
def knockouts(
    loaded: LoadedModel, windows: Sequence[np.ndarray], layers: Sequence[int]
) -> dict[tuple[int, int], Knockout]:
    """The rise of the loss without each expert of some layers, on the same windows.

    Each costs a forward from the expert's layer on. The interval is from the spread over windows, which are the
    units that are nearly independent; weighted by their tokens.

    Args:
        loaded: the model.
        windows: token ids, each window with the token before it.
        layers: MoE layers, counted among themselves from 0.

    Returns:
        By layer (counted among the MoE layers) and expert. Empty where every token needs all experts.
    """
    model, config = loaded.model, loaded.model.config
    if config.n_expert <= config.n_expert_per_token:
        return {}
    blocks = moe_blocks(model)
    keys = [(layer, expert) for layer in layers for expert in range(config.n_expert)]
    whole: list[np.ndarray] = []
    without: dict[tuple[int, int], list[np.ndarray]] = {key: [] for key in keys}
    tokens: list[int] = []
    for idx_BT, lengths in batches(windows, model.cos.device):
        inputs = _inputs_of_blocks(model, idx_BT)
        whole.append(_sums(model, inputs[-1], idx_BT, lengths))
        tokens += [length - 1 for length in lengths]
        for layer, expert in keys:
            x_BTD = inputs[blocks[layer]]
            for number in range(blocks[layer], config.n_layer):
                x_BTD = _block(model, number, x_BTD, closed=expert if number == blocks[layer] else None)
            without[layer, expert].append(_sums(model, x_BTD, idx_BT, lengths))
    whole_W, tokens_W = np.concatenate(whole), np.array(tokens)
    return {key: _rise(np.concatenate(sums) - whole_W, tokens_W) for key, sums in without.items()}


def experts_without(moe: MoE, x_BTD: Tensor, closed: int) -> Tensor:
    """The output of an MoE layer, (B, T, D), whose router may not choose one expert."""
    x_TD = x_BTD.flatten(0, 1)
    scores_TE = router_scores(router_logits(x_TD, moe.gate.weight), moe.gate).clone()
    scores_TE[:, closed] = -math.inf
    weights_TK, ids_TK = choose_experts(scores_TE, moe.gate, moe.config)
    rows_E = torch.bincount(ids_TK.flatten(), minlength=moe.config.n_expert)
    y_BTD = moe.experts(x_TD, weights_TK, group_by_expert(ids_TK, rows_E, row_multiple(x_TD))).view_as(x_BTD)
    return y_BTD + moe.shared_experts(x_BTD) if moe.config.n_shared_expert else y_BTD


def _inputs_of_blocks(model: GPT, idx_BT: Tensor) -> list[Tensor]:
    """The input of every block, and last the output of the last one."""
    x_BTD = model.transformer.wte(idx_BT)
    if model.config.scale_embeddings:
        x_BTD = x_BTD * torch.tensor(model.config.n_embd**0.5, dtype=x_BTD.dtype)
    inputs = [x_BTD]
    for number in range(model.config.n_layer):
        inputs.append(_block(model, number, inputs[-1]))
    return inputs


def _block(model: GPT, number: int, x_BTD: Tensor, closed: int | None = None) -> Tensor:
    """One block of a model, with an expert closed if wanted; as `GPT.hidden` runs it."""
    block, config = model.transformer.h[number], model.config
    rope: Any = slice(None) if config.rope_indices is None else config.rope_indices[number]
    cos, sin = (table[None, : x_BTD.size(1)][..., rope] for table in (model.cos, model.sin))
    if closed is None:
        y_BTD, _ = block(x_BTD, cos, sin, None, None, None)
        return y_BTD
    h_BTD, normed_BTD = attend(block, x_BTD, cos, sin, None, None, None)
    result: Tensor = h_BTD + block.post_mlp_norm(experts_without(block.mlp, normed_BTD, closed))
    return result


def _sums(model: GPT, x_BTD: Tensor, idx_BT: Tensor, lengths: Sequence[int]) -> np.ndarray:
    """The loss of each window, summed over its tokens, (B,)."""
    losses_BT = window_losses(model, model.transformer.ln_f(x_BTD), idx_BT, lengths)
    sums: np.ndarray = losses_BT.double().sum(1).cpu().numpy()
    return sums


def _rise(difference_W: np.ndarray, tokens_W: np.ndarray) -> Knockout:
    """Mean per token and its confidence interval: of a ratio of sums over windows."""
    count, total = len(difference_W), tokens_W.sum()
    rise = float(difference_W.sum() / total)
    if count < 2:
        return Knockout(rise, -math.inf, math.inf)
    residual_W = difference_W - rise * tokens_W
    error = math.sqrt(count / (count - 1) * float((residual_W**2).sum())) / total
    reach = float(_student(count - 1) * error)
    return Knockout(rise, rise - reach, rise + reach)


def _student(freedom: int) -> float:
    """How many standard errors Student's t holds 95 % within; by Cornish and Fisher, 2 % off at 4 degrees."""
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
