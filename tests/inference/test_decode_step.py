"""The lean step against the model's own forward, which is checked against LitGPT's in test_gpt.py."""

from typing import Any

import pytest
import torch
from litgpt import Config
from support.small import MODEL

from litmoe.inference.decode import decode
from litmoe.inference.model_decoder import decode_step, supported
from litmoe.model.gpt import GPT

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "multi-head": {"n_query_groups": 4},
    "multi-query": {"n_query_groups": 1},
    "partly rotated": {"rotary_percentage": 0.25},
    "not rotated": {"rotary_percentage": 0.0},
    "parallel": {"parallel_residual": True, "shared_attention_norm": True},
    "layer norm, post norms": {
        "norm_class_name": "LayerNorm",
        "post_attention_norm": True,
        "post_mlp_norm": True,
    },
    "biases, dense": {"mlp_class_name": "GptNeoxMLP", "bias": True, "lm_head_bias": True},
    "Gemma's ways": {
        "name": "Gemma-test",
        "scale_embeddings": True,
        "final_logit_softcapping": 5.0,
        "attention_scores_scalar": 3,
    },
    "DeepSeek's router": {
        "n_expert_groups": 2,
        "n_topk_groups": 1,
        "n_topk_scores_per_group": 2,
        "n_shared_expert": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
    },
    "large weights": {"n_embd": 264, "moe_intermediate_size": 100},
}


def _model(**settings: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(Config(**(MODEL | {"n_head": 4} | settings))).eval()
    for parameter in model.parameters():  # norms and biases too
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sequences", [1, 3])
@torch.no_grad()
def test_logits_are_those_of_the_whole_sequence(variant: str, sequences: int) -> None:
    model = _model(**VARIANTS[variant])
    assert supported(model.config)
    idx_BT = torch.randint(512, (sequences, 12))
    model.set_kv_cache(sequences)
    model(idx_BT[:, :5], torch.arange(5), input_pos_maxp1=5)
    step = decode_step(model)
    logits_BTV = torch.stack([step(idx_BT[:, t], t) for t in range(5, 12)], dim=1)
    model.clear_kv_cache()
    torch.testing.assert_close(logits_BTV, model(idx_BT)[:, 5:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
@torch.no_grad()
def test_threads_share_large_weights(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        test_logits_are_those_of_the_whole_sequence("large weights", 2)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_each_sequence_may_stand_elsewhere() -> None:
    model = _model()
    lengths, idx_BT = torch.tensor([3, 7, 5]), torch.randint(512, (3, 10))
    model.set_kv_cache(3)
    model(idx_BT[:, :7], torch.arange(7), input_pos_maxp1=7)  # more than some rows have: it must not be seen
    step = decode_step(model)
    for extra in range(3):
        logits_BV = step(idx_BT[torch.arange(3), lengths + extra], lengths + extra)
    model.clear_kv_cache()
    for row, length in enumerate(lengths.tolist()):
        expected_V = model(idx_BT[row : row + 1, : length + 3])[0, -1]
        torch.testing.assert_close(logits_BV[row], expected_V, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("sequences", [1, 2])
def test_only_the_chosen_experts_are_touched(sequences: int) -> None:
    """With every other expert's weights not a number, the logits stay the same."""
    model = _model()
    idx_BT = torch.full((sequences, 1), 7)
    expected_BV = model(idx_BT)[:, 0]
    _, routings = model.hidden(idx_BT)
    layers = zip(model.transformer.h, routings, strict=True)
    for block, routing in layers:
        idle = [e for e in range(4) if e not in routing.ids_TK]
        assert len(idle) == 2
        block.mlp.experts.w13_EID[idle] = torch.nan
        block.mlp.experts.w2_EDI[idle] = torch.nan
    model.set_kv_cache(sequences)
    torch.testing.assert_close(decode_step(model)(idx_BT[:, 0], 0), expected_BV, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm_qk": True},
        {"attention_logit_softcapping": 10.0},
        {"sliding_window_size": 8, "sliding_window_indices": [1, 0]},
    ],
    ids=lambda settings: next(iter(settings)),
)
@torch.no_grad()
def test_what_the_lean_step_does_not_know_goes_through_the_model(settings: dict[str, Any]) -> None:
    model = _model(**settings)
    assert not supported(model.config)
    prompt = torch.arange(5)
    ids = list(decode(model, prompt, max_new_tokens=3, end_id=None, temperature=0))
    tokens = prompt
    for token in ids:
        assert int(model(tokens[None])[0, -1].argmax()) == token
        tokens = torch.cat([tokens, torch.tensor([token])])
