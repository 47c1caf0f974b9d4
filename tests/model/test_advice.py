"""What is said of settings that work, but not as their names suggest; and that it is true."""

from typing import Any

import pytest
import torch
from litgpt import Config

from litmoe.config import MoEArgs
from litmoe.model.advice import advice
from litmoe.model.config import load_model_config, with_correction_bias
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.objective import Objective

MODEL = {
    "block_size": 16,
    "vocab_size": 40,
    "padded_vocab_size": 40,
    "n_layer": 1,
    "n_embd": 16,
    "n_head": 2,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 4,
    "n_expert_per_token": 2,
    "intermediate_size": 12,
    "bias": False,
}
SIGMOID = {"n_expert_groups": 4, "n_topk_groups": 4, "n_topk_scores_per_group": 1}


def of(model: dict[str, Any], **moe: Any) -> list[str]:
    return advice(load_model_config(MODEL | model), MoEArgs(**moe))


def router_gradient(config: Config) -> float:
    """The norm of what the cross-entropy alone sends to the router."""
    model = GPT(config)
    initialize(model, seed=0)
    idx_BT = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(0))
    Objective(model, switch_coefficient=0, z_coefficient=0)(idx_BT, idx_BT).total.backward()
    return float(model.transformer.h[0].mlp.gate.weight.grad.norm())


@pytest.mark.parametrize(
    ("changes", "balance", "said"),
    [
        ({}, "switch", False),
        ({"n_expert_per_token": 1}, "switch", True),
        ({"n_expert_per_token": 1}, "bias", True),
        ({"n_expert_per_token": 1} | SIGMOID, "none", False),
        ({"n_expert_per_token": 1, "norm_topk_prob": True} | SIGMOID, "none", True),
    ],
)
def test_a_router_without_a_gradient_is_said_and_has_none(
    changes: dict[str, Any], balance: Any, said: bool
) -> None:
    config = load_model_config(MODEL | changes)
    if balance == "bias":
        config = with_correction_bias(config)
    lines = advice(config, MoEArgs(balance=balance))
    assert any("no gradient from the text" in line for line in lines) == said
    assert (router_gradient(config) < 1e-7) == said
    if said:
        assert ("balance losses only" in lines[0]) == (balance == "switch")


def test_settings_that_do_nothing_are_said() -> None:
    assert of({}) == of({}, balance="bias") == of({}, balance="none", z_coefficient=0.0) == []
    assert "nothing to choose" in of({"n_expert": 1, "n_expert_per_token": 1})[0]
    assert "nothing to balance" in of({"n_expert_per_token": 4})[0]
    assert "nothing to balance" not in of({"n_expert_per_token": 4}, balance="none")[0]
    assert "switch_coefficient is 0" in of({}, switch_coefficient=0.0)[0]
    assert "bias_update_speed is 0" in of({}, balance="bias", bias_update_speed=0.0)[0]
    dense = {"mlp_class_name": "LLaMAMLP", "n_expert": 0, "n_expert_per_token": 0}
    assert of(dense) == [] and "model is dense" in of(dense, balance="bias")[0]
