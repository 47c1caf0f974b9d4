"""LitGPT's GPT with litmoe's MoE layer: same configuration, same checkpoints, same logits, and the routing too.

Shape suffixes: B sequences, T tokens of a sequence, D model width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Literal

import litgpt.model
import torch
from litgpt import Config
from litgpt.model import CausalSelfAttention, LLaMAMLP, MultiheadLatentAttention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from litmoe.errors import ConfigError
from litmoe.model.moe.experts import Experts
from litmoe.model.moe.layer import MoE
from litmoe.model.moe.router import Routing, route
from litmoe.model.norm import norm_class


class Block(nn.Module):
    """One transformer layer by LitGPT's rules: pre-norms, optional post-norms, sequential or parallel."""

    compiled_attend: Callable[..., tuple[Tensor, Tensor]] | None = None
    """:func:`attend` by `torch.compile`, used in training; see :meth:`GPT.compile_blocks`."""

    def __init__(self, config: Config, block_idx: int) -> None:
        super().__init__()
        if config.shared_attention_norm and not config.parallel_residual:
            raise ConfigError("shared_attention_norm: true needs parallel_residual: true in the model config")

        def norm(wanted: bool) -> nn.Module:
            return norm_class(config)(config.n_embd, eps=config.norm_eps) if wanted else nn.Identity()

        attention = MultiheadLatentAttention if config.latent_attention else CausalSelfAttention
        is_dense = block_idx < (config.first_k_dense_replace or 0)
        self.norm_1 = norm(config.norm_1)
        self.attn = attention(config, block_idx)
        self.post_attention_norm = norm(config.post_attention_norm)
        self.norm_2 = None if config.norm_2 and config.shared_attention_norm else norm(config.norm_2)
        if config.mlp_class_name == "LLaMAMoE":
            self.mlp = LLaMAMLP(config) if is_dense else MoE(config)
        else:
            self.mlp = config.mlp_class(config)
        self.post_mlp_norm = norm(config.post_mlp_norm)
        self.config = config

    def forward(
        self, x_BTD: Tensor, *attention_args: Any, counted_BT: Tensor | None = None
    ) -> tuple[Tensor, Routing | None]:
        """The layer's output, (B, T, D), and its routing; None where the layer is dense."""
        compiled = self.compiled_attend if self.training else None
        h_BTD, normed_BTD = (compiled or attend)(self, x_BTD, *attention_args)
        routing = None
        if isinstance(self.mlp, MoE):
            y_BTD, routing = self.mlp(normed_BTD, counted_BT)
        else:
            y_BTD = self.mlp(normed_BTD)
        return h_BTD + self.post_mlp_norm(y_BTD), routing


def attend(block: Block, x_BTD: Tensor, *attention_args: Any) -> tuple[Tensor, Tensor]:
    """The first half of a layer, up to its MLP: the residual stream, and the input of the MLP, both (B, T, D)."""
    normed_BTD = block.norm_1(x_BTD)
    h_BTD = x_BTD + block.post_attention_norm(block.attn(normed_BTD, *attention_args))
    if block.norm_2 is not None:
        normed_BTD = block.norm_2(x_BTD if block.config.parallel_residual else h_BTD)
    return h_BTD, normed_BTD


class GPT(litgpt.model.GPT):
    """A `litgpt.GPT` in everything but its MoE layers: rotary and KV caches, generation, state dict."""

    transformer: Any  # a ModuleDict, whose entries LitGPT reaches by attribute
    recompute_blocks: bool = False
    """Training: keep only the input of every block and run the block again in the backward."""

    def __init__(self, config: Config) -> None:
        nn.Module.__init__(self)  # LitGPT's own would build its blocks, only to throw them away
        self.config = config
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=config.lm_head_bias)
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.padded_vocab_size, config.n_embd),
                "h": nn.ModuleList(Block(config, block_idx) for block_idx in range(config.n_layer)),
                "ln_f": norm_class(config)(config.n_embd, eps=config.norm_eps),
            }
        )
        self.mask_cache: Tensor | None = None
        self.max_seq_length = config.block_size  # builds the rotary cache

    def set_recompute(self, what: Literal["none", "experts", "blocks"]) -> None:
        """Choose what the backward computes again instead of keeping it; no choice changes a bit of a result."""
        self.recompute_blocks = what == "blocks"
        for module in self.modules():
            if isinstance(module, Experts):
                module.recompute = what == "experts"

    def hidden(
        self,
        idx_BT: Tensor,
        input_pos: Tensor | None = None,
        input_pos_maxp1: int | None = None,
        counted_BT: Tensor | None = None,
    ) -> tuple[Tensor, list[Routing]]:
        """The normed output of the last block, (B, T, D), and the routing of every MoE layer.

        Args:
            idx_BT: token ids.
            input_pos: positions of the tokens, (T,) or (B, T), to read and write the KV cache; None for
                whole sequences without one.
            input_pos_maxp1: `max(input_pos) + 1` where known, to use no more of the cache than that.
            counted_BT: bool; the tokens that count in the routing's statistics. None: all.

        Raises:
            ValueError: when a sequence is longer than `max_seq_length`.
        """
        if idx_BT.size(1) > self.max_seq_length:
            raise ValueError(f"{idx_BT.size(1)} tokens are more than max_seq_length = {self.max_seq_length}")

        # positions and embeddings
        cos, sin, mask = self._positions(idx_BT.size(1), input_pos, input_pos_maxp1)
        x_BTD = self.transformer.wte(idx_BT)
        if self.config.scale_embeddings:
            x_BTD = x_BTD * torch.tensor(self.config.n_embd**0.5, dtype=x_BTD.dtype)

        # the blocks
        routings: list[Routing] = []
        for block_idx, block in enumerate(self.transformer.h):
            rope = slice(None)
            if self.config.rope_indices is not None:  # local and global layers rotate differently
                rope = self.config.rope_indices[block_idx]
            args = (x_BTD, cos[..., rope], sin[..., rope], mask, input_pos, input_pos_maxp1)
            if self.recompute_blocks and torch.is_grad_enabled():
                # nothing in a block draws random numbers
                x_BTD, routing = checkpoint(
                    block, *args, use_reentrant=False, preserve_rng_state=False, counted_BT=counted_BT
                )
            else:
                x_BTD, routing = block(*args, counted_BT=counted_BT)
            if routing is not None:
                routings.append(routing)
        return self.transformer.ln_f(x_BTD), routings

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Use `torch.compile` for the attention half of every block and the router of every MoE layer.

        The experts stay outside: their token counts differ every step, and would break the graph or be compiled
        again. One compiled function serves all blocks, in training only, where shapes stay the same.
        Parameters and their names stay as they are.
        """
        compiled_attend = torch.compile(attend, fullgraph=True, backend=backend)
        compiled_route = torch.compile(route, fullgraph=True, backend=backend)
        for block in self.transformer.h:
            block.compiled_attend = compiled_attend
            if isinstance(block.mlp, MoE):
                block.mlp.compiled_route = compiled_route

    def forward(
        self,
        idx: Tensor,
        input_pos: Tensor | None = None,
        input_pos_maxp1: int | None = None,
        lm_head_chunk_size: int = 0,
    ) -> Tensor | list[Tensor]:
        """Logits, (B, T, V), or a list of them for every `lm_head_chunk_size` positions. As `litgpt.GPT`."""
        x_BTD, _ = self.hidden(idx, input_pos, input_pos_maxp1)
        if lm_head_chunk_size > 0:
            return [self.logits(chunk) for chunk in x_BTD.split(lm_head_chunk_size, dim=1)]
        return self.logits(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Logits of normed hidden states, (B, T, V)."""
        logits_BTV: Tensor = self.lm_head(x_BTD)
        cap = self.config.final_logit_softcapping
        return logits_BTV if cap is None else torch.tanh(logits_BTV / cap) * cap

    def _positions(
        self, T: int, input_pos: Tensor | None, input_pos_maxp1: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows of the rotary tables, (1 or B, T, ...), and the KV cache's mask, (1 or B, 1, T, S)."""
        if input_pos is None:
            return self.cos[None, :T], self.sin[None, :T], None
        if input_pos.shape[-1] != T or input_pos.dim() > 2:
            raise ValueError(f"input_pos must be (T,) or (B, T) with T = {T}, not {tuple(input_pos.shape)}")
        if self.mask_cache is None:
            raise TypeError("call set_kv_cache() before a forward with input_pos")
        if input_pos_maxp1 is not None and input_pos_maxp1 > self.max_seq_length:
            raise ValueError(
                f"input_pos_maxp1 = {input_pos_maxp1} is past max_seq_length = {self.max_seq_length}"
            )
        pos = torch.atleast_2d(input_pos)
        return self.cos[pos], self.sin[pos], self.mask_cache[0, 0, pos, :input_pos_maxp1].unsqueeze(1)
