"""Model configurations: what cannot be built is refused by the names of its fields, and all else trains."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litgpt.config import name_to_config

from litmoe.errors import ConfigError
from litmoe.model.config import load_model_config, named_model_config, with_correction_bias
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.objective import Objective

MOE = {
    "block_size": 16,
    "vocab_size": 40,
    "padded_vocab_size": 40,
    "n_layer": 2,
    "n_embd": 16,
    "n_head": 4,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 6,
    "n_expert_per_token": 2,
    "intermediate_size": 12,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
}
DENSE = MOE | {"mlp_class_name": "LLaMAMLP", "n_expert": 0, "n_expert_per_token": 0}
GROUPS = {"n_expert_groups": 3, "n_topk_groups": 2, "n_topk_scores_per_group": 2}
LATENT = {
    "q_lora_rank": 6,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 2,
    "qk_nope_head_dim": 4,
    "v_head_dim": 3,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 5}, "impossible model: n_embd 16 is not a multiple of n_head 5"),
        ({"n_head": 0}, "n_head must be greater than 0, got 0"),
        ({"n_query_groups": 3}, "n_head 4 is not a multiple of n_query_groups 3"),
        ({"n_query_groups": 0}, "n_query_groups must be greater than 0"),
        ({"padding_multiple": 0, "padded_vocab_size": None}, "padding_multiple must be greater than 0"),
        ({"n_expert_per_token": 7}, "n_expert_per_token must be from 1 to n_expert 6, got 7"),
        ({"n_expert_per_token": 0}, "n_expert_per_token must be from 1"),
        ({"n_expert": 0}, "needs n_expert greater than 0"),
        ({"n_expert": -2}, "n_expert must not be negative"),
        ({"bias": True}, "bias: true is not possible with LLaMAMoE"),
        ({"n_shared_expert": 1}, "n_shared_expert needs moe_intermediate_size"),
        ({"first_k_dense_replace": 2}, "leaves no layer"),
        ({"n_topk_groups": 2}, "n_topk_groups has no effect without n_expert_groups"),
        (GROUPS | {"n_expert_groups": 1}, "n_expert_groups must be 2 or more and divide n_expert 6, got 1"),
        (GROUPS | {"n_expert_groups": 0}, "n_expert_groups must be 2 or more"),
        (GROUPS | {"n_expert_groups": 4}, "divide n_expert 6, got 4"),
        (GROUPS | {"n_topk_groups": None}, "n_topk_groups from 1 to n_expert_groups 3, got None"),
        (GROUPS | {"n_topk_groups": 4}, "n_topk_groups from 1 to n_expert_groups 3, got 4"),
        (GROUPS | {"n_topk_scores_per_group": 3}, "from 1 to the experts of a group 2, got 3"),
        (GROUPS | {"n_topk_scores_per_group": None}, "got None"),
        (GROUPS | {"n_topk_groups": 1, "n_expert_per_token": 3}, "3 is more than the 2 experts"),
        ({"shared_attention_norm": True}, "needs parallel_residual: true"),
        ({"latent_attention": {}}, "latent_attention needs q_lora_rank, kv_lora_rank"),
        ({"latent_attention": LATENT | {"v_head_dim": None}}, "latent_attention needs v_head_dim"),
        ({"latent_attention": LATENT, "n_query_groups": 2}, "n_query_groups equal to n_head 4"),
        ({"rope_indices": [0, 1]}, "rope_indices has no effect without rope_local_base_freq"),
        ({"sliding_window_indices": [0, 1]}, "has no effect without sliding_window_size"),
        ({"sliding_window_size": 4, "sliding_window_indices": [1]}, "impossible model: .*length"),
        ({"rotary_percentage": 1.5}, "rotary_percentage must be above 0 and at most 1"),
        ({"rope_adjustments": {"low_freq_factor": 1.0}}, "impossible model: .*missing in rope_adjustments"),
        ({"final_logit_softcapping": 0.0}, "final_logit_softcapping must be greater than 0"),
        (DENSE | {"n_expert_groups": 2}, "no effect with mlp_class_name LLaMAMLP"),
        (DENSE | {"first_k_dense_replace": 1}, "no effect with mlp_class_name LLaMAMLP"),
        (DENSE | {"intermediate_size": None}, "LLaMAMLP needs intermediate_size"),
        (DENSE | {"mlp_class_name": "GemmaMLP", "gelu_approximate": "erf"}, "impossible model: "),
        ({"mlp_class_name": "LlamaMoE"}, "mlp_class_name"),
        ({"n_experts": 4}, "unknown setting n_experts; did you mean n_expert"),
        ({"n_layer": "two"}, "n_layer"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_model_config(MOE | changes)
    assert str(error.value).startswith("model_config: ")


def test_a_bias_needs_two_experts_to_balance() -> None:
    one = load_model_config(MOE | {"n_expert": 1, "n_expert_per_token": 1})
    with pytest.raises(ConfigError, match=r"moe\.balance: bias needs two experts or more"):
        with_correction_bias(one)


@pytest.mark.parametrize("name", list(name_to_config)[::7])
def test_models_of_litgpt_are_taken_as_they_are(name: str) -> None:
    config = named_model_config(name)
    assert config.name == name_to_config[name]["name"] and config.padded_vocab_size >= config.vocab_size


small = st.integers(-1, 9)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "n_layer": small,
    "n_embd": st.integers(-1, 24),
    "n_head": small,
    "n_query_groups": st.none() | small,
    "head_size": st.none() | small,
    "rotary_percentage": st.sampled_from([-0.5, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0]),
    "intermediate_size": st.none() | st.integers(0, 12),
    "moe_intermediate_size": st.none() | st.integers(0, 12),
    "n_expert": small,
    "n_expert_per_token": small,
    "n_shared_expert": st.none() | st.integers(-1, 2),
    "n_expert_groups": st.none() | small,
    "n_topk_groups": st.none() | small,
    "n_topk_scores_per_group": st.none() | small,
    "first_k_dense_replace": st.none() | st.integers(-1, 3),
    "routed_scaling_factor": st.sampled_from([0.0, 1.0, 2.5]),
    "norm_topk_prob": st.booleans(),
    "bias": st.booleans(),
    "norm_qk": st.booleans(),
    "norm_qk_type": st.sampled_from(["default", "olmo2"]),
    "parallel_residual": st.booleans(),
    "shared_attention_norm": st.booleans(),
    "norm_1": st.booleans(),
    "norm_2": st.booleans(),
    "mlp_class_name": st.sampled_from(["GptNeoxMLP", "LLaMAMLP", "GemmaMLP", "LLaMAMoE"]),
    "sliding_window_size": st.none() | small,
    "sliding_window_indices": st.none() | st.lists(st.integers(0, 1), max_size=4),
    "rope_local_base_freq": st.none() | st.sampled_from([0.0, 100.0]),
    "rope_indices": st.none() | st.lists(st.integers(0, 2), max_size=4),
    "attention_logit_softcapping": st.none() | st.sampled_from([-1.0, 0.0, 5.0]),
    "attention_scores_scalar": st.none() | small,
    "latent_attention": st.none() | st.fixed_dictionaries({}, optional=dict.fromkeys(LATENT, small)),
    "rope_interleave": st.booleans(),
    "rope_condense_ratio": small,
    "padding_multiple": small,
    "padded_vocab_size": st.none() | st.integers(0, 50),
}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([MOE, MOE | GROUPS, DENSE, MOE | {"latent_attention": LATENT}]),
    st.fixed_dictionaries({}, optional=FIELDS).flatmap(
        lambda all_: (
            st.lists(st.sampled_from(sorted(all_)), unique=True, max_size=3).map(
                lambda names: {name: all_[name] for name in names}
            )
            if all_
            else st.just({})
        )
    ),
    st.booleans(),
)
def test_any_configuration_is_refused_or_trains(
    base: dict[str, Any], changes: dict[str, Any], bias: bool
) -> None:
    """Whatever three fields are changed: one line, or finite losses and gradients."""
    try:
        config = load_model_config(base | changes)
        if bias and config.mlp_class_name == "LLaMAMoE":
            config = with_correction_bias(config)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    torch.manual_seed(0)
    model = GPT(config)
    initialize(model, seed=0)
    idx_BT = torch.randint(min(config.vocab_size, config.padded_vocab_size), (1, 7))
    losses = Objective(model)(idx_BT, idx_BT)
    losses.total.backward()
    assert all(torch.isfinite(value).all() for value in losses)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
