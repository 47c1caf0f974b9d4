"""The router: which experts a token goes to, with what weight, and statistics of these choices.

Shape suffixes: T tokens, K experts per token, E experts, D model width.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from litmoe.model.moe.balance import token_mean, z_loss

if TYPE_CHECKING:
    from litgpt import Config
    from litgpt.model import GroupedTopkRouter


class Routing(NamedTuple):
    """What the router of one layer decided for T tokens.

    A named tuple and no dataclass, because DDP, FSDP and Fabric look for tensors in tuples only. Statistics
    (`counts_E`, `p_E`, `z`, `entropy`) are over the tokens that count, which are all unless some are masked.
    """

    weights_TK: Tensor
    """Weight of each chosen expert's output, fp32, differentiable."""
    ids_TK: Tensor
    """The chosen experts, int64, distinct within a token."""
    logits_TE: Tensor
    """Raw scores, fp32, differentiable."""
    rows_E: Tensor
    """Assignments per expert over all tokens, int64; they sum to T*K."""
    counts_E: Tensor
    """Assignments per expert over the tokens that count, int64; the same tensor as `rows_E` if all do."""
    p_E: Tensor
    """Mean probability of each expert, differentiable; sums to 1."""
    z: Tensor
    """Router z-loss of this layer, a differentiable scalar."""
    entropy: Tensor
    """Mean entropy of the tokens' distributions over experts, in nats, detached: log(E) when undecided."""


def route(
    x_TD: Tensor, gate: "nn.Linear | GroupedTopkRouter", config: "Config", counted_T: Tensor | None = None
) -> Routing:
    """Choose K experts for every token, by LitGPT's rules, in fp32 whatever autocast says.

    A plain gate takes the K largest logits and the softmax over them. A `GroupedTopkRouter` (DeepSeek-V3,
    arXiv 2412.19437) scores by sigmoid, chooses within the best groups with the correction bias added,
    and weighs by the scores without it.

    Args:
        x_TD: the layer's input.
        gate: of the layer.
        config: of the model.
        counted_T: bool; the tokens that count in the statistics and so in the balance losses. The others are
            routed all the same. None: all of them.
    """
    logits_TE = router_logits(x_TD, gate.weight)
    scores_TE = router_scores(logits_TE, gate)
    weights_TK, ids_TK = choose_experts(scores_TE, gate, config)
    if not isinstance(gate, nn.Linear):
        p_TE = scores_TE / scores_TE.sum(-1, keepdim=True)
    else:
        p_TE = logits_TE.softmax(-1)
    # bincount would wait for the device to learn the largest id
    chosen = ids_TK.reshape(-1, 1) == torch.arange(config.n_expert, device=ids_TK.device)
    rows_E = chosen.sum(0)
    counts_E = rows_E
    if counted_T is not None:
        counts_E = (chosen & counted_T.repeat_interleave(ids_TK.size(1))[:, None]).sum(0)
    entropy_T = torch.special.entr(p_TE.detach()).sum(-1)
    return Routing(
        weights_TK,
        ids_TK,
        logits_TE,
        rows_E,
        counts_E,
        p_E=token_mean(p_TE, counted_T),
        z=z_loss(logits_TE, counted_T),
        entropy=token_mean(entropy_T, counted_T),
    )


def router_logits(x_TD: Tensor, w_ED: Tensor) -> Tensor:
    """`x @ w.T`, (T, E), in fp32 (fp64 for fp64), keeping `x` for the backward in its own type."""
    logits_TE: Tensor = _RouterLogits.apply(x_TD, w_ED)
    return logits_TE


def router_scores(logits_TE: Tensor, gate: "nn.Linear | GroupedTopkRouter") -> Tensor:
    """What experts are chosen and weighted by: the logits, or their sigmoid for a `GroupedTopkRouter`."""
    return logits_TE if isinstance(gate, nn.Linear) else logits_TE.sigmoid()


def choose_experts(
    scores_TE: Tensor, gate: "nn.Linear | GroupedTopkRouter", config: "Config"
) -> tuple[Tensor, Tensor]:
    """The K experts of every token by their scores, as (weights_TK, ids_TK)."""
    if not isinstance(gate, nn.Linear):
        ids_TK = gate.get_topk_indices(scores_TE)
        weights_TK = scores_TE.gather(1, ids_TK)
        if config.norm_topk_prob:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
    else:
        top_TK, ids_TK = scores_TE.topk(config.n_expert_per_token)
        weights_TK = top_TK.softmax(-1)
    if config.routed_scaling_factor != 1.0:
        weights_TK = weights_TK * config.routed_scaling_factor
    return weights_TK, ids_TK


class _RouterLogits(torch.autograd.Function):
    """`x @ w.T` in fp32. Left to autograd, a bf16 model would keep 4 bytes more per token and width."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, w_ED: Tensor) -> Tensor:
        ctx.save_for_backward(x_TD, w_ED)
        # at least fp32: a choice between near-equal experts must not depend on rounding to bf16;
        # fp64 stays, so that gradcheck means something
        ctx.dtype = torch.promote_types(x_TD.dtype, torch.float32)
        with torch.autocast(x_TD.device.type, enabled=False):
            return x_TD.to(ctx.dtype) @ w_ED.to(ctx.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlogits_TE: Tensor) -> tuple[Tensor, Tensor]:
        x_TD, w_ED = ctx.saved_tensors
        with torch.autocast(x_TD.device.type, enabled=False):
            dx_TD = dlogits_TE @ w_ED.to(ctx.dtype)
            dw_ED = dlogits_TE.T @ x_TD.to(ctx.dtype)
        return dx_TD.to(x_TD.dtype), dw_ED.to(w_ED.dtype)
