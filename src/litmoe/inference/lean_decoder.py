"""The weights of a checkpoint as a :class:`Decoder`, without LitGPT, whose import takes longer than a short text.

It computes by the same operations as the model itself, so the same seed gives the same text.

Shape suffixes: T tokens of a prompt, D model width, H query heads, G query groups, S head size, R rotated
features, L positions, E experts, K experts per token, I expert width, B sequences, V vocabulary.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from litmoe.inference.decode_step import (
    ChosenExperts,
    DecodeStep,
    Function,
    LayerParts,
    Rotary,
    linear,
    rms_norm,
)
from litmoe.inference.decoder import Decoder
from litmoe.inference.lean_config import LeanConfig, shapes_of
from litmoe.model.moe.backends import BACKENDS, choose_backend, row_multiple
from litmoe.model.moe.dispatch import group_by_expert
from litmoe.model.moe.experts import stack
from litmoe.model.moe.router import router_logits
from litmoe.model.precision import compute_dtype


class LeanDecoder(Decoder):
    """A model of this kind."""

    def __init__(self, config: LeanConfig, weights: Mapping[str, Tensor], device: torch.device) -> None:
        """
        Args:
            config: its sizes.
            weights: by LitGPT's names, with the shapes of :func:`shapes_of`.
            device: where to compute.
        """
        self.device, self.context, self.vocabulary = device, config.block_size, config.padded_vocab_size
        self._config = config
        own = {name: weights[name].to(device) for name in shapes_of(config) if ".experts." not in name}
        self._embedding, self._head = own["transformer.wte.weight"], own["lm_head.weight"]
        self._final_norm = own["transformer.ln_f.weight"]
        self._cos_LR, self._sin_LR = (table_LR.to(device) for table_LR in _rotary_tables(config))
        self._layers = [_Layer(config, weights, own, number) for number in range(config.n_layer)]
        self._step = DecodeStep(
            lambda tokens_B: F.embedding(tokens_B, self._embedding),
            [layer.parts for layer in self._layers],
            rms_norm(self._final_norm, config.norm_eps),
            linear(self._head),
            Rotary(self._cos_LR, self._sin_LR, config.head_size),
        )

    def open(self, batch_size: int, longest: int) -> None:
        shape = (batch_size, self._config.n_query_groups, longest, self._config.head_size)
        for layer in self._layers:
            layer.cache.k = torch.zeros(shape, dtype=self._embedding.dtype, device=self.device)
            layer.cache.v = torch.zeros_like(layer.cache.k)

    def read(self, prompt_T: Tensor) -> Tensor:
        T = prompt_T.numel()
        mask_11TT = torch.ones(T, T, dtype=torch.bool, device=self.device).tril()[None, None]
        cos_1TR, sin_1TR = self._cos_LR[None, :T], self._sin_LR[None, :T]
        x_1TD = F.embedding(prompt_T[None], self._embedding)
        for layer in self._layers:
            x_1TD = layer.read(x_1TD, cos_1TR, sin_1TR, mask_11TT)
        return F.linear(_norm(x_1TD, self._final_norm, self._config.norm_eps)[0, -1], self._head)

    def copy(self, row: int, length: int) -> None:
        for layer in self._layers:
            for cache in (layer.cache.k, layer.cache.v):
                cache[row, :, :length] = cache[0, :, :length]

    def step(self, tokens_B: Tensor, position: int | Tensor) -> Tensor:
        return self._step(tokens_B, position)

    def close(self) -> None:
        for layer in self._layers:
            layer.cache.k = layer.cache.v = torch.empty(0)


class _Cache:
    """Keys and values of all sequences, (B, G, longest, S); nothing until the decoder is opened."""

    k = v = torch.empty(0)


class _Layer:
    """A transformer layer: reads prompts itself, and is parts for :class:`DecodeStep`."""

    def __init__(
        self, config: LeanConfig, weights: Mapping[str, Tensor], own: Mapping[str, Tensor], number: int
    ) -> None:
        prefix = f"transformer.h.{number}."
        self.config, self.cache = config, _Cache()
        self.norm_1, self.norm_2 = own[f"{prefix}norm_1.weight"], own[f"{prefix}norm_2.weight"]
        self.qkv, self.proj = own[f"{prefix}attn.qkv.weight"], own[f"{prefix}attn.proj.weight"]
        self.scale = 1.0 / math.sqrt(config.head_size)
        self.mlp: _MLP | _MoE = _MLP(own, f"{prefix}mlp.")
        if config.mlp_class_name == "LLaMAMoE":
            self.mlp = _MoE(config, weights, own, f"{prefix}mlp.")
        self.parts = LayerParts(
            norm_1=rms_norm(self.norm_1, config.norm_eps),
            qkv=linear(self.qkv),
            proj=linear(self.proj),
            cache=self.cache,
            n_head=config.n_head,
            n_groups=config.n_query_groups,
            head_size=config.head_size,
            scale=self.scale,
            mlp=self.mlp.one_token,
            norm_2=rms_norm(self.norm_2, config.norm_eps),
            post_attention_norm=_same,
            post_mlp_norm=_same,
            parallel=False,
        )

    def read(self, x_1TD: Tensor, cos_1TR: Tensor, sin_1TR: Tensor, mask_11TT: Tensor) -> Tensor:
        """The layer on a prompt, whose keys and values go to row 0 of the cache."""
        eps = self.config.norm_eps
        h_1TD = x_1TD + self._attend(_norm(x_1TD, self.norm_1, eps), cos_1TR, sin_1TR, mask_11TT)
        return h_1TD + self.mlp.read(_norm(h_1TD, self.norm_2, eps))

    def _attend(self, x_1TD: Tensor, cos_1TR: Tensor, sin_1TR: Tensor, mask_11TT: Tensor) -> Tensor:
        H, G, S, T = self.config.n_head, self.config.n_query_groups, self.config.head_size, x_1TD.size(1)
        parts = F.linear(x_1TD, self.qkv).split((H * S, G * S, G * S), dim=-1)
        q_1HTS, k_1GTS, v_1GTS = (part.view(1, T, -1, S).transpose(1, 2) for part in parts)
        q_1HTS, k_1GTS = (_rotate(part, cos_1TR, sin_1TR) for part in (q_1HTS, k_1GTS))
        self.cache.k[:1, :, :T] = k_1GTS
        self.cache.v[:1, :, :T] = v_1GTS
        k_1GTS, v_1GTS = self.cache.k[:1, :, :T], self.cache.v[:1, :, :T]
        if G not in (1, H):
            k_1GTS, v_1GTS = (part.repeat_interleave(H // G, dim=1) for part in (k_1GTS, v_1GTS))
        y_1HTS = F.scaled_dot_product_attention(q_1HTS, k_1GTS, v_1GTS, attn_mask=mask_11TT, scale=self.scale)
        return F.linear(y_1HTS.transpose(1, 2).reshape(1, T, H * S), self.proj)


class _MLP:
    """LitGPT's ``LLaMAMLP``."""

    def __init__(self, own: Mapping[str, Tensor], prefix: str) -> None:
        names = [f"{prefix}{name}.weight" for name in ("fc_1", "fc_2", "proj")]
        self.weights = [own[name] for name in names if name in own]

    def read(self, x_1TD: Tensor) -> Tensor:
        """(1, T, D) or (B, D), like the model itself, which takes no shortcut here for one token."""
        fc_1, fc_2, proj = self.weights
        return F.linear(F.silu(F.linear(x_1TD, fc_1)) * F.linear(x_1TD, fc_2), proj)

    one_token = read


class _MoE:
    """A layer of experts."""

    def __init__(
        self, config: LeanConfig, weights: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str
    ) -> None:
        self.config, self.gate_ED = config, own[f"{prefix}gate.weight"]
        experts = {name: weight for name, weight in weights.items() if name.startswith(f"{prefix}experts.")}
        w13_EID, w2_EDI = stack(experts, f"{prefix}experts.")
        self.w13_EID, self.w2_EDI = w13_EID.to(self.gate_ED.device), w2_EDI.to(self.gate_ED.device)
        self.one_token: Function = ChosenExperts(self.gate_ED, self._choose, self.w13_EID, self.w2_EDI)

    def read(self, x_1TD: Tensor) -> Tensor:
        """(1, T, D)."""
        x_TD = x_1TD.flatten(0, 1)
        weights_TK, ids_TK = self._choose(router_logits(x_TD, self.gate_ED))
        rows_E = torch.bincount(ids_TK.flatten(), minlength=self.config.n_expert)
        dispatch = group_by_expert(ids_TK, rows_E, row_multiple(x_TD))
        backend = BACKENDS[choose_backend(x_TD.device, compute_dtype(x_TD), *self.w2_EDI.shape[1:])]
        y_TD = backend.fused(x_TD, weights_TK, self.w13_EID, self.w2_EDI, dispatch, False)
        return y_TD.view_as(x_1TD)

    def _choose(self, logits_TE: Tensor) -> tuple[Tensor, Tensor]:
        """The weights and ids of every token's experts, both (T, K)."""
        top_TK, ids_TK = logits_TE.topk(self.config.n_expert_per_token)
        weights_TK = top_TK.softmax(-1)
        if self.config.routed_scaling_factor != 1.0:
            weights_TK = weights_TK * self.config.routed_scaling_factor
        return weights_TK, ids_TK


def _same(x: Tensor) -> Tensor:
    return x


def _norm(x_1TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMSNorm in fp32, rounded once, as LitGPT does."""
    x = x_1TD.float()
    x = x * torch.rsqrt(torch.mean(x * x, dim=-1, keepdim=True) + eps)
    return (x * weight_D.float()).to(x_1TD.dtype)


def _rotate(x_1HTS: Tensor, cos_1TR: Tensor, sin_1TR: Tensor) -> Tensor:
    """Turn the first R features of every head: feature i of R/2 with feature i + R/2."""
    R = cos_1TR.size(-1)
    turned, rest = x_1HTS[..., :R], x_1HTS[..., R:]
    first, second = turned.chunk(2, dim=-1)
    turned = (turned * cos_1TR[:, None]) + (torch.cat((-second, first), dim=-1) * sin_1TR[:, None])
    return torch.cat((turned.to(x_1HTS.dtype), rest), dim=-1)


def _rotary_tables(config: LeanConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, (L, R), in fp32 (arXiv 2104.09864)."""
    R = config.rope_n_elem
    angle_P = 1.0 / (config.rope_base ** (torch.arange(0, R, 2).float() / R))
    position_L = torch.arange(config.block_size).float() / config.rope_condense_ratio
    angles_LR = torch.outer(position_L, angle_P).repeat(1, 2)
    return torch.cos(angles_LR), torch.sin(angles_LR)
