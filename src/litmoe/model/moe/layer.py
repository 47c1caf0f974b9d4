"""The MoE layer: router, dispatch and experts behind LitGPT's parameter names.

Shape suffixes: B sequences, T tokens (of one sequence, or of all where flattened), D model width.
"""

from collections.abc import Callable

from litgpt import Config
from litgpt.model import GroupedTopkRouter, LLaMAMLP
from torch import Tensor, nn

from litmoe.errors import ConfigError
from litmoe.model.moe.backends import row_multiple
from litmoe.model.moe.dispatch import group_by_expert
from litmoe.model.moe.experts import Experts
from litmoe.model.moe.router import Routing, route


class MoE(nn.Module):
    """Drop-in for `litgpt.model.LLaMAMoE` that also returns what the router did.

    Raises:
        ConfigError: for `bias: true` (experts have no biases) and for sizes that do not fit together.
    """

    compiled_route: Callable[..., Routing] | None = None
    """:func:`route` by `torch.compile`, used in training; see `GPT.compile_blocks`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        width = config.moe_intermediate_size or config.intermediate_size
        if config.n_expert_groups:
            self.gate = GroupedTopkRouter(config)
            nn.init.normal_(self.gate.weight, std=0.02)  # LitGPT leaves it uninitialized
        else:
            self.gate = nn.Linear(config.n_embd, config.n_expert, bias=False)
        self.experts = Experts(config.n_expert, config.n_embd, width)
        if config.n_shared_expert:
            self.shared_experts = LLaMAMLP(config, intermediate_size=width * config.n_shared_expert)

    def forward(self, x_BTD: Tensor, counted_BT: Tensor | None = None) -> tuple[Tensor, Routing]:
        """The layer's output, (B, T, D), and the routing of the B*T tokens.

        `counted_BT` says which tokens count in the routing's statistics; None: all.
        """
        x_TD = x_BTD.flatten(0, 1)
        counted_T = None if counted_BT is None else counted_BT.flatten()
        compiled = self.compiled_route if self.training else None
        routing = (compiled or route)(x_TD, self.gate, self.config, counted_T)
        dispatch = group_by_expert(routing.ids_TK, routing.rows_E, row_multiple(x_TD))
        y_BTD = self.experts(x_TD, routing.weights_TK, dispatch).view_as(x_BTD)
        if self.config.n_shared_expert:
            y_BTD = y_BTD + self.shared_experts(x_BTD)
        return y_BTD, routing


def _check(config: Config) -> None:
    if config.bias:
        raise ConfigError("the model config has bias: true, but experts have no biases; set bias: false")
    if not 0 < config.n_expert_per_token <= config.n_expert:
        raise ConfigError(
            f"the model config has n_expert_per_token: {config.n_expert_per_token}, which must lie between 1 "
            f"and n_expert: {config.n_expert}"
        )
