"""Routing: which experts a token goes to, with what weight, and how evenly the tokens spread.

Letters: T tokens, K experts per token, E experts, L layers, D model width, A dispatched rows (the T*K
assignments sorted by expert, and padding where the backend wants it).
"""

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from litgpt import Config
from litgpt.model import GroupedTopkRouter
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Routing(NamedTuple):
    """What the router of one layer decided for T tokens.

    A named tuple and no dataclass, because DDP, FSDP and Fabric look for tensors in tuples only.
    """

    weights_TK: Tensor
    """Weight of each chosen expert's output, fp32, differentiable."""
    ids_TK: Tensor
    """The chosen experts, int64, distinct within a token."""
    logits_TE: Tensor
    """Raw scores, fp32, differentiable."""
    counts_E: Tensor
    """Assignments per expert, int64; they sum to T*K."""
    p_E: Tensor
    """Mean probability of each expert over the tokens, differentiable; sums to 1."""
    z: Tensor
    """Router z-loss of this layer, a differentiable scalar."""
    entropy: Tensor
    """Mean entropy of the tokens' distributions over experts, in nats, detached: log(E) when undecided."""


class DispatchPlan(NamedTuple):
    """Where the rows of the dispatched buffer come from and go to; worked out once per layer."""

    tokens_A: Tensor
    """Token of each row. Rows are grouped by expert and, within an expert, in the order of the tokens."""
    inverse_TK: Tensor
    """Row of each assignment."""
    offsets_E: Tensor
    """Row after the last one of each expert, int32; expert e owns rows offsets[e-1]..offsets[e]-1."""


class _RouterLogits(torch.autograd.Function):
    """`x @ w.T` in fp32 that keeps `x` as it came: a bf16 model saves 4 bytes per token and width."""

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


def route(x_TD: Tensor, gate: nn.Linear | GroupedTopkRouter, config: Config) -> Routing:
    """Choose K experts for every token, by LitGPT's rules, in fp32 whatever autocast says.

    A plain gate takes the K largest logits and the softmax over them. A `GroupedTopkRouter` (DeepSeek-V3,
    arXiv 2412.19437) scores by sigmoid, chooses within the best groups with the correction bias added,
    and weighs by the scores without it.
    """
    logits_TE: Tensor = _RouterLogits.apply(x_TD, gate.weight)
    scores_TE = router_scores(logits_TE, gate)
    weights_TK, ids_TK = choose_experts(scores_TE, gate, config)
    if isinstance(gate, GroupedTopkRouter):
        p_TE = scores_TE / scores_TE.sum(-1, keepdim=True)
    else:
        p_TE = logits_TE.softmax(-1)
    return Routing(
        weights_TK,
        ids_TK,
        logits_TE,
        # bincount would wait for the device to learn the largest id
        counts_E=(ids_TK.reshape(-1, 1) == torch.arange(config.n_expert, device=ids_TK.device)).sum(0),
        p_E=p_TE.mean(0),
        z=z_loss(logits_TE),
        entropy=torch.special.entr(p_TE.detach()).sum(-1).mean(),
    )


def router_scores(logits_TE: Tensor, gate: nn.Linear | GroupedTopkRouter) -> Tensor:
    """What experts are chosen and weighted by: the logits, or their sigmoid for a `GroupedTopkRouter`."""
    return logits_TE.sigmoid() if isinstance(gate, GroupedTopkRouter) else logits_TE


def choose_experts(
    scores_TE: Tensor, gate: nn.Linear | GroupedTopkRouter, config: Config
) -> tuple[Tensor, Tensor]:
    """The K experts of every token by their scores, as (weights_TK, ids_TK)."""
    if isinstance(gate, GroupedTopkRouter):
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


def dispatch_plan(ids_TK: Tensor, counts_E: Tensor, row_multiple: int = 1) -> DispatchPlan:
    """Group the assignments by expert: a stable sort, and its inverse.

    `row_multiple` rounds every expert's rows up with rows of token 0 that no assignment points to. Whoever
    gives them weight 0 in the backward need not know of them. Rounding waits for the device once.
    """
    T, K = ids_TK.shape
    order_A = ids_TK.flatten().argsort(stable=True)
    rows_A = torch.arange(T * K, device=ids_TK.device)
    tokens_A = order_A // K
    if row_multiple > 1:
        padding = [-count % row_multiple for count in counts_E.tolist()]
        before_E = ids_TK.new_tensor([0, *accumulate(padding[:-1])])
        rows_A = rows_A + before_E.repeat_interleave(counts_E, output_size=T * K)
        counts_E = counts_E + ids_TK.new_tensor(padding)
        tokens_A = tokens_A.new_zeros(T * K + sum(padding)).index_copy_(0, rows_A, tokens_A)
    inverse_TK = torch.empty_like(order_A).index_copy_(0, order_A, rows_A).view(T, K)
    return DispatchPlan(tokens_A, inverse_TK, offsets_E=counts_E.cumsum(0).to(torch.int32))


def switch_loss(p_E: Tensor, load_E: Tensor | None = None) -> Tensor:
    """Balance loss of Switch Transformers (arXiv 2101.03961): `E * sum_e f_e p_e`, 1.0 at balance.

    `p_E` holds mean router probabilities and `load_E` assignment counts, of shape (..., E); the result is
    (...). f is the fraction of the assignments given; without any (None, or all zero) it is uniform, and
    the loss 1.0 without gradient.
    """
    n_expert = p_E.size(-1)
    if load_E is None:
        return p_E.sum(-1)
    total = load_E.sum(-1, keepdim=True)
    f_E = torch.where(total > 0, load_E / total.clamp(min=1), 1 / n_expert)
    return n_expert * (f_E * p_E).sum(-1)


def z_loss(logits_TE: Tensor) -> Tensor:
    """Router z-loss of ST-MoE (arXiv 2202.08906): mean over tokens of `logsumexp(logits)**2`.

    It keeps logits small; (log E)**2 when all are zero.
    """
    return logits_TE.logsumexp(-1).square().mean()


@torch.no_grad()
def update_correction_bias(bias_E: Tensor, counts_E: Tensor, speed: float) -> None:
    """One step of loss-free balancing (arXiv 2408.15664), in place: `bias += speed * sign(mean - counts)`.

    `counts_E` are the assignments of the whole last global batch. Keep the bias in fp32: in bf16 steps of
    0.001 are lost as soon as it passes 0.25.
    """
    counts_E = counts_E.to(torch.float32)
    bias_E.add_((counts_E.mean() - counts_E).sign().to(bias_E.dtype), alpha=speed)
