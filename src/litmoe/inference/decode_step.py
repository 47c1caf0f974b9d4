"""One more token for every sequence, with as few operations as possible.

For one token every product is a vector times a matrix, whose cost is reading the matrix, and much of the time goes
to what is around the products: LitGPT's forward runs 224 operations per MoE layer (top-2 of 8) and token, this one
63, views included. The prompt goes through the model as usual and leaves its keys and values in LitGPT's caches,
which are read and written here in place.

Shape suffixes: B sequences, D model width, H query heads, G query groups, S head size, L tokens so far, K
experts per token, E experts, I expert width, N sequences that chose one expert, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from litgpt import Config
from litgpt.model import RMSNorm
from torch import Tensor, nn

from litmoe.model.gpt import GPT, Block
from litmoe.model.moe.layer import MoE
from litmoe.model.moe.router import choose_experts, router_scores

LARGE = 2**14
"""Weights of this many numbers or more are read by all threads of a CPU; below, waking them costs more."""


def supported(config: Config) -> bool:
    """Whether :class:`DecodeStep` can do everything that the model's layers do; else use the model's own
    forward."""
    return not (
        config.latent_attention
        or config.norm_qk
        or config.rope_interleave
        or config.rope_indices is not None
        or config.sliding_window_size is not None
        or config.attention_logit_softcapping is not None
        or config.rope_n_elem % 2
    )


class DecodeStep:
    """The step of a model whose caches hold what came before.

    It holds views of the weights, no copies, and touches only the experts chosen.
    """

    def __init__(self, model: GPT) -> None:
        """``model`` is in evaluation mode, its key-value caches set, its configuration :func:`supported`."""
        assert supported(model.config)
        self.model = model
        self.layers = [_Layer(block) for block in model.transformer.h]
        self.final_norm = _norm(model.transformer.ln_f)
        self.head = _linear(model.lm_head)
        self.rotary = _Rotary(model.cos, model.sin, model.config.head_size)

    def __call__(self, tokens_B: Tensor, position: int | Tensor) -> Tensor:
        """Logits of what follows, (B, V).

        Args:
            tokens_B: the last token of each sequence.
            position: where it stands: the same for all (an int), or one for each (B,).
        """
        x_BD: Tensor = self.model.transformer.wte(tokens_B)
        if self.model.config.scale_embeddings:
            x_BD = x_BD * self.model.config.n_embd**0.5
        at = _Position(position, self.rotary)
        for layer in self.layers:
            x_BD = layer(x_BD, at)
        logits_BV = self.head(self.final_norm(x_BD))
        cap = self.model.config.final_logit_softcapping
        return logits_BV if cap is None else torch.tanh(logits_BV / cap) * cap


class _Position:
    """Where the tokens stand, in the forms that the layers need; computed once for all of them."""

    def __init__(self, position: int | Tensor, rotary: "_Rotary") -> None:
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


class _Rotary:
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


class _Layer:
    """A transformer layer on one token per sequence."""

    def __init__(self, block: Block) -> None:
        config, attention = block.config, block.attn
        self.qkv, self.proj, self.cache = _linear(attention.qkv), _linear(attention.proj), attention.kv_cache
        self.norm_1, self.norm_2 = _norm(block.norm_1), block.norm_2 and _norm(block.norm_2)
        self.post_attention_norm = _norm(block.post_attention_norm)
        self.post_mlp_norm = _norm(block.post_mlp_norm)
        self.mlp = _Experts(block.mlp) if isinstance(block.mlp, MoE) else block.mlp
        self.parallel = config.parallel_residual
        self.n_head, self.n_groups, self.head_size = config.n_head, config.n_query_groups, config.head_size
        self.scale = attention.mscale**2 / math.sqrt(config.attention_scores_scalar or config.head_size)

    def __call__(self, x_BD: Tensor, at: _Position) -> Tensor:
        normed_BD = self.norm_1(x_BD)
        h_BD = x_BD + self.post_attention_norm(self.attend(normed_BD, at))
        if self.norm_2 is not None:
            normed_BD = self.norm_2(x_BD if self.parallel else h_BD)
        return h_BD + self.post_mlp_norm(self.mlp(normed_BD))

    def attend(self, x_BD: Tensor, at: _Position) -> Tensor:
        """Attention of one query per head to all tokens so far.

        The heads of a group share keys and values. Treated as several queries of one head, they need neither
        copies of those nor a mask.
        """
        B, H, G, S = x_BD.size(0), self.n_head, self.n_groups, self.head_size
        qkv_BHS = self.qkv(x_BD).view(B, H + 2 * G, S)
        qk_BHS, v_BGS = qkv_BHS.split((H + G, G), dim=1)
        q_BHS, k_BGS = at.rotate(qk_BHS).split((H, G), dim=1)
        k_BGLS, v_BGLS = at.write(self.cache.k, k_BGS), at.write(self.cache.v, v_BGS)
        q_BGHS = q_BHS.reshape(B, G, H // G, S)
        y_BGHS = F.scaled_dot_product_attention(
            q_BGHS, k_BGLS, v_BGLS, attn_mask=at.mask_B11L, scale=self.scale
        )
        return self.proj(y_BGHS.reshape(B, H * S))


class _Experts:
    """An MoE layer on one token per sequence, without dispatch and sorting, which cost more than the products
    here."""

    def __init__(self, moe: MoE) -> None:
        self.moe = moe
        self.times_w13 = [_product(w13_ID) for w13_ID in moe.experts.w13_EID.detach().unbind()]
        self.times_w2 = [_product(w2_DI) for w2_DI in moe.experts.w2_EDI.detach().unbind()]
        # At least fp32, as in training.
        self.gate_DE = (
            moe.gate.weight.detach().to(torch.promote_types(moe.gate.weight.dtype, torch.float32)).T
        )

    def __call__(self, x_BD: Tensor) -> Tensor:
        moe = self.moe
        scores_BE = router_scores(x_BD.to(self.gate_DE.dtype) @ self.gate_DE, moe.gate)
        weights_BK, ids_BK = choose_experts(scores_BE, moe.gate, moe.config)
        if x_BD.size(0) == 1:
            y_BD = torch.zeros_like(x_BD)
            for expert, weight in zip(ids_BK.tolist()[0], weights_BK.tolist()[0], strict=True):
                y_BD.add_(self.expert(x_BD, expert), alpha=weight)
        else:
            y_BD = self.by_expert(x_BD, weights_BK, ids_BK)
        if moe.config.n_shared_expert:
            y_BD = y_BD + moe.shared_experts(x_BD)
        return y_BD

    def by_expert(self, x_BD: Tensor, weights_BK: Tensor, ids_BK: Tensor) -> Tensor:
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
            y_BD.index_add_(0, rows_N, self.expert(x_BD[rows_N], expert) * weights_N1)
        return y_BD

    def expert(self, x_ND: Tensor, expert: int) -> Tensor:
        h1_NI, h3_NI = self.times_w13[expert](x_ND).chunk(2, dim=1)
        return self.times_w2[expert](F.silu(h1_NI).mul_(h3_NI))


def _linear(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    product, bias = _product(linear.weight.detach()), linear.bias
    return product if bias is None else lambda x_BD: product(x_BD) + bias


def _product(weight_NK: Tensor) -> Callable[[Tensor], Tensor]:
    """`F.linear` by a weight for a few rows, (B, K) to (B, N): on a CPU at the speed of its memory.

    `F.linear` reads with one thread, and for 2 to 16 rows uses a routine made for many. Cut into one part for
    each of two threads, (2048, 512) in fp32, not in cache, is read at 16 GB/s instead of 9, with 4 rows at 14
    instead of 5.5, and (768, 192) at 18 instead of 8.5.
    """
    N, K = weight_NK.shape
    if weight_NK.device.type == "cpu" and weight_NK.dtype == torch.float32 and weight_NK.numel() >= LARGE:
        parts = max(parts for parts in range(1, torch.get_num_threads() + 1) if N % parts == 0)
        parts_CNK = weight_NK.view(parts, N // parts, K)

        def product(x_BK: Tensor) -> Tensor:
            y_CNB = torch.bmm(parts_CNK, x_BK.T.expand(parts, -1, -1))
            return y_CNB.view(1, N) if x_BK.size(0) == 1 else y_CNB.view(N, -1).T.contiguous()

        return product
    return lambda x_BK: F.linear(x_BK, weight_NK)


def _norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """The norm as a function; LitGPT's RMSNorm with half its operations, or as the GPU's own."""
    if isinstance(norm, nn.Identity):
        return lambda x_BD: x_BD
    if not isinstance(norm, RMSNorm) or norm.dim != -1:
        return norm
    weight_D = 1 + norm.weight.detach() if norm.add_unit_offset else norm.weight.detach()
    shape, width = weight_D.shape, weight_D.numel()
    eps_11 = weight_D.new_full((1, 1), norm.eps)

    def rms_norm(x_BD: Tensor) -> Tensor:
        if x_BD.size(0) == 1 and x_BD.device.type == "cpu" and x_BD.dtype == torch.float32:
            return (x_BD * weight_D).mul_(torch.addmm(eps_11, x_BD, x_BD.T, alpha=1 / width).rsqrt_())
        return F.rms_norm(x_BD, shape, weight_D, norm.eps)

    return rms_norm
