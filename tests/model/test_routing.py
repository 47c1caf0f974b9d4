"""Routing: who goes where, the dispatch, the balance losses and loss-free balancing."""

import math

import pytest
import torch
from litgpt import Config
from litgpt.model import GroupedTopkRouter
from torch import nn

from litmoe.model.moe.balance import switch_loss, update_correction_bias, z_loss
from litmoe.model.moe.dispatch import group_by_expert
from litmoe.model.moe.router import Routing, route, router_logits

T, D = 300, 16
PLAIN = {"n_embd": D, "n_head": 2, "n_expert": 8, "n_expert_per_token": 2, "mlp_class_name": "LLaMAMoE"}
GROUPED = PLAIN | {
    "n_expert_groups": 4,
    "n_topk_groups": 2,
    "n_topk_scores_per_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def routed(settings: dict, x_TD: torch.Tensor | None = None) -> tuple[Routing, nn.Module]:
    config = Config(**settings)
    if config.n_expert_groups:
        gate = GroupedTopkRouter(config)
        nn.init.normal_(gate.weight)
        gate.e_score_correction_bias.normal_()
    else:
        gate = nn.Linear(D, config.n_expert, bias=False)
    return route(torch.randn(T, D) if x_TD is None else x_TD, gate, config), gate


@pytest.mark.parametrize("settings", [PLAIN, GROUPED, PLAIN | {"n_expert_per_token": 1}])
def test_counts_sum_to_tokens_times_k_and_ids_are_distinct(settings):
    routing, _ = routed(settings)
    K = settings["n_expert_per_token"]
    assert routing.counts_E.dtype == torch.int64
    assert routing.counts_E.sum() == T * K
    assert torch.equal(routing.counts_E, routing.ids_TK.flatten().bincount(minlength=8))
    assert all(len(set(ids)) == K for ids in routing.ids_TK.tolist())


def test_plain_gate_weights_are_the_softmax_over_the_chosen_logits():
    routing, gate = routed(PLAIN, x_TD := torch.randn(T, D))
    logits_TE = (x_TD @ gate.weight.T).tolist()
    for t in range(T):
        best = sorted(range(8), key=lambda e: -logits_TE[t][e])[:2]
        odds = [math.exp(logits_TE[t][e]) for e in best]
        assert routing.ids_TK[t].tolist() == best
        assert routing.weights_TK[t].tolist() == pytest.approx([o / sum(odds) for o in odds], rel=1e-5)


def test_grouped_gate_is_litgpts_router():
    routing, gate = routed(GROUPED, x_TD := torch.randn(T, D))
    weights_TK, ids_TK = gate(x_TD)
    assert torch.equal(routing.ids_TK, ids_TK)
    torch.testing.assert_close(routing.weights_TK, 2.5 * weights_TK)


@pytest.mark.parametrize("settings", [PLAIN, GROUPED])
def test_statistics_against_plain_formulas(settings):
    routing, gate = routed(settings, x_TD := torch.randn(T, D))
    logits_TE = x_TD.double() @ gate.weight.double().T
    p_TE = logits_TE.softmax(-1) if settings is PLAIN else logits_TE.sigmoid()
    p_TE = p_TE / p_TE.sum(-1, keepdim=True)
    torch.testing.assert_close(routing.p_E.double(), p_TE.mean(0), rtol=1e-5, atol=0)
    entropy = -(p_TE * p_TE.log()).sum() / T
    torch.testing.assert_close(routing.entropy.double(), entropy, rtol=1e-5, atol=0)
    z = sum(math.log(sum(math.exp(logit) for logit in row)) ** 2 for row in logits_TE.tolist()) / T
    assert routing.z.item() == pytest.approx(z, rel=1e-5)
    assert not routing.entropy.requires_grad and routing.p_E.requires_grad and routing.z.requires_grad


def test_router_stays_in_fp32_under_autocast():
    x_TD, gate = torch.randn(T, D), nn.Linear(D, 8, bias=False)
    expected = route(x_TD, gate, Config(**PLAIN))
    with torch.autocast("cpu", torch.bfloat16):
        actual = route(x_TD, gate, Config(**PLAIN))
    for got, want in zip(actual, expected, strict=True):
        assert torch.equal(got, want)


def test_router_of_a_bf16_model_multiplies_in_fp32():
    x_TD, gate = torch.randn(T, D).bfloat16(), nn.Linear(D, 8, bias=False).bfloat16()
    routing = route(x_TD, gate, Config(**PLAIN))
    assert torch.equal(routing.logits_TE, x_TD.float() @ gate.weight.float().T)
    routing.z.backward()
    assert gate.weight.grad.dtype == torch.bfloat16


def test_router_logits_gradcheck():
    x_TD, w_ED = torch.randn(7, D).double().requires_grad_(), torch.randn(5, D).double().requires_grad_()
    assert torch.autograd.gradcheck(router_logits, (x_TD, w_ED))


@pytest.mark.parametrize("row_multiple", [1, 8])
def test_dispatch_sends_every_assignment_to_a_row_of_its_expert(row_multiple):
    routing, _ = routed(PLAIN)
    dispatch = group_by_expert(routing.ids_TK, routing.rows_E, row_multiple)
    ends = dispatch.offsets_E.tolist()
    starts = [0, *ends[:-1]]
    assert dispatch.inverse_TK.unique().numel() == routing.ids_TK.numel()  # no two share a row
    for t, (ids, rows) in enumerate(zip(routing.ids_TK.tolist(), dispatch.inverse_TK.tolist(), strict=True)):
        for e, row in zip(ids, rows, strict=True):
            assert starts[e] <= row < ends[e]
            assert dispatch.tokens_A[row] == t
    for start, end, count in zip(starts, ends, routing.counts_E.tolist(), strict=True):
        assert start % row_multiple == 0
        assert 0 <= end - start - count < row_multiple
        tokens = dispatch.tokens_A[start : start + count]
        assert torch.equal(tokens, tokens.sort()[0])  # stable: tokens stay in order within an expert


def test_switch_loss_against_the_sum_over_tokens():
    """The formula of the paper, with the batch's own counts."""
    routing, _ = routed(PLAIN)
    p_TE = routing.logits_TE.softmax(-1)
    expected = 0.0
    for e in range(8):
        fraction = (routing.ids_TK == e).sum().item() / (T * 2)
        expected += 8 * fraction * p_TE[:, e].mean().item()
    assert switch_loss(routing.p_E, routing.counts_E).item() == pytest.approx(expected, rel=1e-5)
    per_layer = switch_loss(torch.stack([routing.p_E] * 3), torch.stack([routing.counts_E] * 3))
    assert per_layer.tolist() == pytest.approx([expected] * 3, rel=1e-5)


def test_balance_losses_at_balance_and_at_collapse():
    uniform, one = torch.full((8,), 1 / 8), torch.eye(8)[0]
    assert switch_loss(uniform, torch.full((8,), 50)).item() == pytest.approx(1.0)
    assert switch_loss(one, torch.tensor([400] + 7 * [0])).item() == pytest.approx(8.0)
    assert z_loss(torch.zeros(5, 8)).item() == pytest.approx(math.log(8) ** 2)


@pytest.mark.parametrize("load_E", [None, torch.zeros(8, dtype=torch.int64)])
def test_switch_loss_without_load_is_one_and_flat(load_E):
    logits_TE = torch.randn(T, 8, requires_grad=True)
    loss = switch_loss(logits_TE.softmax(-1).mean(0), load_E)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert logits_TE.grad.abs().max() < 1e-8


def test_switch_loss_pushes_probability_away_from_the_loaded_expert():
    logits_TE = torch.zeros(T, 4, requires_grad=True)
    switch_loss(logits_TE.softmax(-1).mean(0), torch.tensor([70, 10, 10, 10])).backward()
    assert logits_TE.grad[0, 0] > 0 > logits_TE.grad[0, 1:].max()


def test_correction_bias_drives_a_biased_router_to_balance():
    config = Config(**GROUPED | {"n_expert_groups": 2, "n_topk_groups": 2})
    gate = GroupedTopkRouter(config)
    nn.init.normal_(gate.weight, std=0.1)
    favour = torch.linspace(-1, 1, 8)[:, None] * torch.ones(D) / D
    gate.weight.data += favour
    x_TD = torch.randn(1000, D) + 1  # the mean of 1 turns `favour` into a preference for late experts
    before = route(x_TD, gate, config).counts_E
    for _ in range(300):
        update_correction_bias(gate.e_score_correction_bias, route(x_TD, gate, config).counts_E, speed=3e-3)
    after = route(x_TD, gate, config)
    assert before.max() > 2 * 250 and before.min() < 0.3 * 250
    assert after.counts_E.max() < 1.15 * 250 and after.counts_E.min() > 0.85 * 250
    assert torch.allclose(after.weights_TK.sum(-1), torch.tensor(2.5))  # the bias chooses, it does not weigh
