"""A model on a text: which experts every token goes to, with what weight, and the loss of every token.

Shape suffixes: B windows, T tokens of a window, N tokens of the text, L MoE layers, K experts per token, E
experts, D model width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from litmoe.inference.loading import LoadedModel
from litmoe.model.gpt import GPT
from litmoe.model.loss import token_losses
from litmoe.model.moe.layer import MoE
from litmoe.report.routing.text import Text

WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class Observed:
    """What a model did with a text; tokens in the order of the text."""

    ids_LNK: np.ndarray
    """The chosen experts, best first, int16."""
    weights_LNK: np.ndarray
    """Their gate weights, float32."""
    loss_N: np.ndarray
    """Nats, of predicting the token."""
    entropy_L: np.ndarray
    """Of the router's distribution for a token, mean, nats."""
    n_experts: int


def moe_blocks(model: GPT) -> list[int]:
    """The blocks that have an MoE layer, by their number."""
    return [number for number, block in enumerate(model.transformer.h) if isinstance(block.mlp, MoE)]


@torch.no_grad()
def observe(loaded: LoadedModel, text: Text) -> Observed:
    """Run a model over all windows of a text."""
    model, config = loaded.model, loaded.model.config
    ids, weights, losses = [], [], []
    entropy_L, n_tokens = torch.zeros(len(moe_blocks(model)), dtype=torch.float64), 0
    for idx_BT, lengths in batches(text.windows, model.cos.device):
        x_BTD, routings = model.hidden(idx_BT)
        # The first id of a window stands for what came before; the rest of a row is padding.
        real_BT = _real(lengths, idx_BT)
        real_BT[:, 0] = False
        flat_T = real_BT.flatten()
        ids.append(torch.stack([r.ids_TK[flat_T] for r in routings]).to(torch.int16).cpu())
        weights.append(torch.stack([r.weights_TK[flat_T] for r in routings]).float().cpu())
        losses.append(window_losses(model, x_BTD, idx_BT, lengths)[real_BT[:, 1:]].cpu())
        for layer, routing in enumerate(routings):
            p_TE = routing.logits_TE[flat_T].float().softmax(-1)
            entropy_L[layer] += torch.special.entr(p_TE).sum().double().cpu()
        n_tokens += int(flat_T.sum())
    return Observed(
        *_best_first(torch.cat(ids, dim=1).numpy(), torch.cat(weights, dim=1).numpy()),
        torch.cat(losses).double().numpy(),
        (entropy_L / n_tokens).numpy(),
        config.n_expert,
    )


def batches(windows: Sequence[np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, list[int]]]:
    """Windows as batches of ids, (B, T), padded at their ends, and the length of each.

    Attention looks back only, so that padding at the end changes nothing before it.
    """
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        part = windows[first : first + WINDOWS_AT_ONCE]
        lengths = [len(window) for window in part]
        idx_BT = torch.zeros(len(part), max(lengths), dtype=torch.int64)
        for row, window in enumerate(part):
            idx_BT[row, : len(window)] = torch.from_numpy(window)
        yield idx_BT.to(device), lengths


def window_losses(model: GPT, x_BTD: Tensor, idx_BT: Tensor, lengths: Sequence[int]) -> Tensor:
    """Nats of predicting each token of a window but its first, (B, T - 1), from the model's last hidden states; 0
    in the padding."""
    targets_BT = idx_BT[:, 1:].clone()
    targets_BT[~_real(lengths, idx_BT)[:, 1:]] = -100
    losses_T = token_losses(
        x_BTD[:, :-1].flatten(0, 1),
        model.lm_head.weight,
        targets_BT.flatten(),
        bias=model.lm_head.bias,
        softcap=model.config.final_logit_softcapping,
    )
    return losses_T.view_as(targets_BT)


def _real(lengths: Sequence[int], idx_BT: Tensor) -> Tensor:
    """Which ids of a batch are not padding, (B, T)."""
    ends_B = torch.tensor(lengths, device=idx_BT.device)
    real_BT: Tensor = torch.arange(idx_BT.size(1), device=idx_BT.device)[None] < ends_B[:, None]
    return real_BT


def _best_first(ids_LNK: np.ndarray, weights_LNK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The experts of each token by their weight: a grouped router names them in no order."""
    order = np.argsort(-weights_LNK, axis=-1, kind="stable")
    return np.take_along_axis(ids_LNK, order, -1), np.take_along_axis(weights_LNK, order, -1)
