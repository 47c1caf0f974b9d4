"""One more token for every sequence, with as few operations as possible.

For one token every product is a vector times a matrix, whose cost is reading the matrix, and much of the time
goes to what is around the products: LitGPT's forward runs 224 operations per MoE layer (top-2 of 8) and token,
this one 63, views included. Prompts are read elsewhere, and leave their keys and values in caches, which are
read and written here in place.

Shape suffixes: B sequences, D model width, H query heads, G query groups, S head size, L tokens so far, K
experts per token, E experts, I expert width, N sequences that chose one expert, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 2**14
"""Weights of this many numbers or more are read by all threads of a CPU; below, waking them costs more."""

Function = Callable[[Tensor], Tensor]


class Cache(Protocol):
    """Keys and values of all sequences, each (B, G, longest, S)."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class LayerParts:
    """A transformer layer as functions of one token per sequence, (B, D), and what attention needs to know."""

    norm_1: Function
    qkv: Function
    proj: Function
    cache: Cache
    n_head: int
    n_groups: int
    head_size: int
    scale: float
    """What the products of queries and keys are multiplied by."""
    mlp: Function
    norm_2: Function | None
    """None: the MLP takes what attention takes."""
    post_attention_norm: Function
    post_mlp_norm: Function
    parallel: bool
    """Whether the MLP's norm takes the layer's input, and not attention's output too."""


class DecodeStep:
    """The step of a model whose caches hold what came before. It holds views of the weights, no copies."""

    def __init__(
        self,
        embed: Function,
        layers: Sequence[LayerParts],
        final_norm: Function,
        head: Function,
        rotary: "Rotary",
        softcap: float | None = None,
    ) -> None:
        """
        Args:
            embed: tokens (B,) to (B, D).
            layers: from the first to the last.
            final_norm: (B, D) to (B, D).
            head: (B, D) to logits (B, V).
            rotary: the positions.
            softcap: the logits are pressed between minus and plus this; None: they are not.
        """
        self.embed, self.final_norm, self.head = embed, final_norm, head
        self.layers, self.rotary, self.softcap = layers, rotary, softcap

    def __call__(self, tokens_B: Tensor, position: int | Tensor) -> Tensor:
        """Logits of what follows, (B, V).

        Args:
            tokens_B: the last token of each sequence.
            position: where it stands: the same for all (an int), or one for each (B,).
        """
        x_BD = self.embed(tokens_B)
        at = _Position(position, self.rotary)
        for layer in self.layers:
            x_BD = _layer(layer, x_BD, at)
        logits_BV = self.head(self.final_norm(x_BD))
        return logits_BV if self.softcap is None else torch.tanh(logits_BV / self.softcap) * self.softcap


def _layer(layer: LayerParts, x_BD: Tensor, at: "_Position") -> Tensor:
    normed_BD = layer.norm_1(x_BD)
    h_BD = x_BD + layer.post_attention_norm(_attend(layer, normed_BD, at))
    if layer.norm_2 is not None:
        normed_BD = layer.norm_2(x_BD if layer.parallel else h_BD)
    return h_BD + layer.post_mlp_norm(layer.mlp(normed_BD))


def _attend(layer: LayerParts, x_BD: Tensor, at: "_Position") -> Tensor:
    """Attention of one query per head to all tokens so far.

    The heads of a group share keys and values. Treated as several queries of one head, they need neither copies of
    those nor a mask.
    """
    B, H, G, S = x_BD.size(0), layer.n_head, layer.n_groups, layer.head_size
    qkv_BHS = layer.qkv(x_BD).view(B, H + 2 * G, S)
    qk_BHS, v_BGS = qkv_BHS.split((H + G, G), dim=1)
    q_BHS, k_BGS = at.rotate(qk_BHS).split((H, G), dim=1)
    k_BGLS, v_BGLS = at.write(layer.cache.k, k_BGS), at.write(layer.cache.v, v_BGS)
    q_BGHS = q_BHS.reshape(B, G, H // G, S)
    y_BGHS = F.scaled_dot_product_attention(q_BGHS, k_BGLS, v_BGLS, attn_mask=at.mask_B11L, scale=layer.scale)
    return layer.proj(y_BGHS.reshape(B, H * S))


class _Position:
    """Where the tokens stand, in the forms that the layers need; computed once for all of them."""

    def __init__(self, position: int | Tensor, rotary: "Rotary") -> None:
        self.index = position
        self.rotation = rotary.matrix(position)
        if isinstance(position, int):
            self.length, self.mask_B11L = position + 1, None
        else:
            self.length = int(position.max()) + 1
            so_far_L = torch.arange(self.length, device=position.device)
            self.mask_B11L = (so_far_L <= position[:, None])[:, None, None]

    def rotate(self, qk_BHS: Tensor) -> Tensor:
        """Apply the rotary embedding, in fp32 as LitGPT does."""
        if qk_BHS.dtype == self.rotation.dtype:
            return qk_BHS @ self.rotation
        return (qk_BHS.to(self.rotation.dtype) @ self.rotation).to(qk_BHS.dtype)

    def write(self, cache: Tensor, new_BGS: Tensor) -> Tensor:
        """Write new keys or values into a cache (B, G, longest, S), and return its filled part."""
        if isinstance(self.index, int):
            cache.select(2, self.index).copy_(new_BGS)
        else:
            cache[torch.arange(len(new_BGS), device=cache.device), :, self.index] = new_BGS
        return cache.narrow(2, 0, self.length)


class Rotary:
    """The rotary embedding as a matrix for each position: one product per layer.

    Of the R rotated features, feature i < R/2 turns with feature i + R/2; features from R on stay.
    """

    def __init__(self, cos_LR: Tensor, sin_LR: Tensor, head_size: int) -> None:
        R = cos_LR.size(1)
        self.cos_LS = F.pad(cos_LR, (0, head_size - R), value=1.0)
        self.sin_LS = F.pad(sin_LR, (0, head_size - R))
        self.same_SS = torch.eye(head_size, dtype=cos_LR.dtype, device=cos_LR.device)
        self.partner_SS = torch.zeros_like(self.same_SS)
        self.partner_SS.diagonal(R // 2)[: R // 2] = 1
        self.partner_SS.diagonal(-(R // 2))[: R // 2] = -1

    def matrix(self, position: int | Tensor) -> Tensor:
        """(S, S), or (B, S, S) for positions (B,)."""
        cos_1S, sin_1S = self.cos_LS[position].unsqueeze(-2), self.sin_LS[position].unsqueeze(-2)
        return torch.addcmul(self.same_SS * cos_1S, self.partner_SS, sin_1S)


class ChosenExperts:
    """An MoE layer on one token per sequence, without dispatch and sorting, which cost more than the products
    here.

    It touches only the experts chosen.
    """

    def __init__(
        self,
        gate_ED: Tensor,
        choose: Callable[[Tensor], tuple[Tensor, Tensor]],
        w13_EID: Tensor,
        w2_EDI: Tensor,
        shared: Function | None = None,
    ) -> None:
        """
        Args:
            gate_ED: the router's weight.
            choose: the router's products, (B, E), to the weights and ids of the chosen experts, both (B, K).
            w13_EID: the experts' fc_1 above fc_2, (E, 2I, D).
            w2_EDI: their proj.
            shared: the expert of all tokens, where there is one.
        """
        self.choose, self.shared = choose, shared
        self.times_w13 = [product(w13_ID) for w13_ID in w13_EID.unbind()]
        self.times_w2 = [product(w2_DI) for w2_DI in w2_EDI.unbind()]
        # At least fp32, as in training.
        self.gate_DE = gate_ED.to(torch.promote_types(gate_ED.dtype, torch.float32)).T

    def __call__(self, x_BD: Tensor) -> Tensor:
        weights_BK, ids_BK = self.choose(x_BD.to(self.gate_DE.dtype) @ self.gate_DE)
        if x_BD.size(0) == 1:
            y_BD = torch.zeros_like(x_BD)
            for expert, weight in zip(ids_BK.tolist()[0], weights_BK.tolist()[0], strict=True):
                y_BD.add_(self._expert(x_BD, expert), alpha=weight)
        else:
            y_BD = self._by_expert(x_BD, weights_BK, ids_BK)
        return y_BD if self.shared is None else y_BD + self.shared(x_BD)

    def _by_expert(self, x_BD: Tensor, weights_BK: Tensor, ids_BK: Tensor) -> Tensor:
        """Every chosen expert once, for all sequences that chose it."""
        # expert -> its sequences, and its weight in each
        chosen: dict[int, tuple[list[int], list[float]]] = {}
        for row, (ids, weights) in enumerate(zip(ids_BK.tolist(), weights_BK.tolist(), strict=True)):
            for expert, weight in zip(ids, weights, strict=True):
                chosen.setdefault(expert, ([], []))[0].append(row)
                chosen[expert][1].append(weight)
        y_BD = torch.zeros_like(x_BD)
        for expert, (rows, weights) in chosen.items():
            rows_N = torch.tensor(rows, device=x_BD.device)
            weights_N1 = torch.tensor(weights, dtype=x_BD.dtype, device=x_BD.device).unsqueeze(1)
            y_BD.index_add_(0, rows_N, self._expert(x_BD[rows_N], expert) * weights_N1)
        return y_BD

    def _expert(self, x_ND: Tensor, expert: int) -> Tensor:
        h1_NI, h3_NI = self.times_w13[expert](x_ND).chunk(2, dim=1)
        return self.times_w2[expert](F.silu(h1_NI).mul_(h3_NI))


def linear(weight_NK: Tensor, bias_N: Tensor | None = None) -> Function:
    """A linear layer for a few rows, by :func:`product`."""
    times = product(weight_NK)
    return times if bias_N is None else lambda x_BK: times(x_BK) + bias_N


def product(weight_NK: Tensor) -> Function:
    """`F.linear` by a weight for a few rows, (B, K) to (B, N): on a CPU at the speed of its memory.

    `F.linear` reads with one thread, and for 2 to 16 rows uses a routine made for many. Cut into one part for
    each of two threads, (2048, 512) in fp32, not in cache, is read at 16 GB/s instead of 9, with 4 rows at 14
    instead of 5.5, and (768, 192) at 18 instead of 8.5.
    """
    N, K = weight_NK.shape
    if weight_NK.device.type == "cpu" and weight_NK.dtype == torch.float32 and weight_NK.numel() >= LARGE:
        parts = max(parts for parts in range(1, torch.get_num_threads() + 1) if N % parts == 0)
        parts_CNK = weight_NK.view(parts, N // parts, K)

        def by_parts(x_BK: Tensor) -> Tensor:
            y_CNB = torch.bmm(parts_CNK, x_BK.T.expand(parts, -1, -1))
            return y_CNB.view(1, N) if x_BK.size(0) == 1 else y_CNB.view(N, -1).T.contiguous()

        return by_parts
    return lambda x_BK: F.linear(x_BK, weight_NK)


def rms_norm(weight_D: Tensor, eps: float) -> Function:
    """RMSNorm as LitGPT's with half its operations, or as the GPU's own."""
    shape, width = weight_D.shape, weight_D.numel()
    eps_11 = weight_D.new_full((1, 1), eps)

    def norm(x_BD: Tensor) -> Tensor:
        if x_BD.size(0) == 1 and x_BD.device.type == "cpu" and x_BD.dtype == torch.float32:
            return (x_BD * weight_D).mul_(torch.addmm(eps_11, x_BD, x_BD.T, alpha=1 / width).rsqrt_())
        return F.rms_norm(x_BD, shape, weight_D, eps)

    return norm
