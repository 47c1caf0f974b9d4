"""The loss of a training step: cross-entropy, and the balance losses of the MoE layers.

Shape suffixes: B sequences, T tokens of a sequence, D model width, L MoE layers, E experts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from litmoe.model.gpt import GPT
from litmoe.model.loss import linear_cross_entropy
from litmoe.model.moe.balance import switch_loss

IGNORED = -100
"""The target of a position that is not learned: padding, or a prompt that only leads to an answer."""


class StepLosses(NamedTuple):
    """Losses and statistics of one micro-batch. Only `total` carries a graph: sums of the rest keep none alive.

    A named tuple and no dataclass, because DDP, FSDP and Fabric look for tensors in tuples only. A dense
    model has L = 0, and `switch` and `z` are 0.
    """

    total: Tensor
    """`cross_entropy + switch_coefficient * switch + z_coefficient * z`, plus the head's z-loss
    by its coefficient: the scalar to differentiate."""
    cross_entropy: Tensor
    """Mean over the targets, in nats; the head's z-loss is not in it."""
    switch: Tensor
    """Switch balance loss, mean over layers; 1.0 when the load is even."""
    z: Tensor
    """Router z-loss, mean over layers."""
    counts_LE: Tensor
    """Assignments per expert, int64; each row sums to B*T*K, or to K per target where some are masked."""
    p_LE: Tensor
    """Mean router probabilities."""
    entropy_L: Tensor
    """Mean entropy of the router's distributions, in nats."""


def n_targets(targets_BT: Tensor) -> Tensor:
    """Targets that are learned, an int64 scalar on their device."""
    return (targets_BT != IGNORED).sum()


class Objective(nn.Module):
    """A GPT with its losses: the module that DDP or FSDP wraps, with one forward per micro-batch."""

    def __init__(
        self,
        model: GPT,
        switch_coefficient: float = 0.01,
        z_coefficient: float = 1e-3,
        head_z_coefficient: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.switch_coefficient = switch_coefficient
        self.z_coefficient = z_coefficient
        self.head_z_coefficient = head_z_coefficient

    def forward(
        self, idx_BT: Tensor, targets_BT: Tensor, load_LE: Tensor | None = None, masked: bool = False
    ) -> StepLosses:
        """Losses of one micro-batch, which are means over its targets.

        Args:
            idx_BT: token ids.
            targets_BT: the ids that follow them; :data:`IGNORED` where a position is not learned.
            load_LE: the counts of the *last* whole global batch, summed over micro-batches and processes: the f of
                the Switch loss. The loss of a global batch is then linear in its tokens, so it does not depend on
                how the batch is cut into micro-batches, and a step needs one all-reduce of L*E integers instead
                of one per layer and micro-batch. The price is that f is one step old, as it is in loss-free
                balancing. Without it (first step, evaluation) f is uniform and the Switch loss has no gradient.
            masked: whether there may be ignored targets. Their positions then count in no loss, count, probability
                or entropy of the routers either; experts see them, because later positions attend to them. To get
                the mean over the targets of a global batch, weight each micro-batch by its :func:`n_targets`.
        """
        counted_BT = targets_BT != IGNORED if masked else None
        x_BTD, routings = self.model.hidden(idx_BT, counted_BT=counted_BT)
        head = self.model.lm_head
        head_loss, cross_entropy = linear_cross_entropy(
            x_BTD.flatten(0, 1),
            head.weight,
            targets_BT.flatten(),
            ignore_index=IGNORED,
            bias=head.bias,
            softcap=self.model.config.final_logit_softcapping,
            z_coefficient=self.head_z_coefficient,
        )
        if routings:
            p_LE = torch.stack([routing.p_E for routing in routings])
            counts_LE = torch.stack([routing.counts_E for routing in routings])
            entropy_L = torch.stack([routing.entropy for routing in routings])
            switch = switch_loss(p_LE, load_LE).mean()
            z = torch.stack([routing.z for routing in routings]).mean()
        else:
            p_LE = cross_entropy.new_zeros(0, self.model.config.n_expert)
            counts_LE = p_LE.long()
            entropy_L = switch_loss(p_LE)
            switch = z = cross_entropy.new_zeros(())
        total = head_loss + self.switch_coefficient * switch + self.z_coefficient * z
        reported = (cross_entropy, switch, z, counts_LE, p_LE, entropy_L)
        return StepLosses(total, *(value.detach() for value in reported))
