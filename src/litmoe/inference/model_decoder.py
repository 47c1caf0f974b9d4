"""A model in memory as a :class:`Decoder`: prompts by its own forward, tokens by :class:`DecodeStep`."""

import math
from collections.abc import Callable

import torch
from litgpt import Config
from litgpt.model import RMSNorm
from torch import Tensor, nn

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
from litmoe.model.gpt import GPT, Block
from litmoe.model.moe.layer import MoE
from litmoe.model.moe.router import choose_experts, router_scores


class ModelDecoder(Decoder):
    """The model's mode and caches are its own again when the decoder is closed."""

    def __init__(self, model: GPT) -> None:
        """``model`` is on its device; at most ``model.max_seq_length`` tokens of context."""
        assert model.config.padded_vocab_size is not None
        self._model, self._was_training = model, model.training
        self.device = model.cos.device
        self.context, self.vocabulary = model.max_seq_length, model.config.padded_vocab_size
        self._step: Callable[[Tensor, int | Tensor], Tensor] | None = None

    def open(self, batch_size: int, longest: int) -> None:
        self._model.eval()
        self._model.set_kv_cache(batch_size=batch_size, max_seq_length=longest, device=self.device)

    def read(self, prompt_T: Tensor) -> Tensor:
        T = prompt_T.numel()
        positions_T = torch.arange(T, device=self.device)
        x_BTD, _ = self._model.hidden(prompt_T[None], positions_T, input_pos_maxp1=T)
        return self._model.logits(x_BTD[0, -1])

    def copy(self, row: int, length: int) -> None:
        for block in self._model.transformer.h:
            for cache in (block.attn.kv_cache.k, block.attn.kv_cache.v):
                cache[row, :, :length] = cache[0, :, :length]

    def step(self, tokens_B: Tensor, position: int | Tensor) -> Tensor:
        if self._step is None:
            model = self._model
            self._step = decode_step(model) if supported(model.config) else _whole_forward(model)
        return self._step(tokens_B, position)

    def close(self) -> None:
        self._step = None
        self._model.clear_kv_cache()
        self._model.train(self._was_training)


def supported(config: Config) -> bool:
    """Whether :class:`DecodeStep` can do what the model's layers do; else use the model's own forward."""
    return not (
        config.latent_attention
        or config.norm_qk
        or config.rope_interleave
        or config.rope_indices is not None
        or config.sliding_window_size is not None
        or config.attention_logit_softcapping is not None
        or config.rope_n_elem % 2
    )


def decode_step(model: GPT) -> DecodeStep:
    """The step of a model in evaluation mode, its caches set, its configuration :func:`supported`."""
    assert supported(model.config)
    embedding, scale = model.transformer.wte, model.config.n_embd**0.5
    return DecodeStep(
        (lambda tokens_B: embedding(tokens_B) * scale) if model.config.scale_embeddings else embedding,
        [_parts(block) for block in model.transformer.h],
        _norm(model.transformer.ln_f),
        _linear(model.lm_head),
        Rotary(model.cos, model.sin, model.config.head_size),
        model.config.final_logit_softcapping,
    )


def _parts(block: Block) -> LayerParts:
    config, attention = block.config, block.attn
    return LayerParts(
        norm_1=_norm(block.norm_1),
        qkv=_linear(attention.qkv),
        proj=_linear(attention.proj),
        cache=attention.kv_cache,
        n_head=config.n_head,
        n_groups=config.n_query_groups,
        head_size=config.head_size,
        scale=attention.mscale**2 / math.sqrt(config.attention_scores_scalar or config.head_size),
        mlp=_experts(block.mlp) if isinstance(block.mlp, MoE) else block.mlp,
        norm_2=block.norm_2 and _norm(block.norm_2),
        post_attention_norm=_norm(block.post_attention_norm),
        post_mlp_norm=_norm(block.post_mlp_norm),
        parallel=config.parallel_residual,
    )


def _experts(moe: MoE) -> ChosenExperts:
    def choose(logits_BE: Tensor) -> tuple[Tensor, Tensor]:
        return choose_experts(router_scores(logits_BE, moe.gate), moe.gate, moe.config)

    return ChosenExperts(
        moe.gate.weight.detach(),
        choose,
        moe.experts.w13_EID.detach(),
        moe.experts.w2_EDI.detach(),
        moe.shared_experts if moe.config.n_shared_expert else None,
    )


def _linear(layer: nn.Linear) -> Function:
    return linear(layer.weight.detach(), layer.bias)


def _norm(norm: nn.Module) -> Function:
    """The norm as a function; LitGPT's RMSNorm as :func:`rms_norm`."""
    if isinstance(norm, nn.Identity):
        return lambda x_BD: x_BD
    if not isinstance(norm, RMSNorm) or norm.dim != -1:
        return norm
    return rms_norm(1 + norm.weight.detach() if norm.add_unit_offset else norm.weight.detach(), norm.eps)


def _whole_forward(model: GPT) -> Callable[[Tensor, int | Tensor], Tensor]:
    """The step by the model's own forward, for models that :class:`DecodeStep` does not support."""

    def step(tokens_B: Tensor, position: int | Tensor) -> Tensor:
        if isinstance(position, int):
            input_pos, upto = torch.tensor([position], device=tokens_B.device), position + 1
        else:
            input_pos, upto = position[:, None], int(position.max()) + 1
        x_BTD, _ = model.hidden(tokens_B[:, None], input_pos, input_pos_maxp1=upto)
        return model.logits(x_BTD[:, 0])

    return step
