"""The MoE layer's state dict, which is LitGPT's, and what it refuses. Its numbers are in test_experts.py."""

import pytest
import torch
from litgpt import Config
from litgpt.model import LLaMAMoE

from litmoe.errors import LitMoEError
from litmoe.model.moe.experts import Experts, stack, unstack
from litmoe.model.moe.layer import MoE

D, WIDTH = 24, 20
BASE = {
    "n_embd": D,
    "n_head": 2,
    "bias": False,
    "mlp_class_name": "LLaMAMoE",
    "intermediate_size": WIDTH,
    "n_expert": 6,
    "n_expert_per_token": 2,
}
GROUPED = {
    "n_expert_groups": 3,
    "n_topk_groups": 2,
    "n_topk_scores_per_group": 1,
    "moe_intermediate_size": 12,
    "n_shared_expert": 1,
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pair(**changes) -> tuple[MoE, LLaMAMoE]:
    """Our layer and LitGPT's, with the same weights."""
    config = Config(**BASE | changes)
    ours, theirs = MoE(config), LLaMAMoE(config)
    if config.n_expert_groups:
        ours.gate.e_score_correction_bias.normal_(std=0.1)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


class TestStateDict:
    def test_keys_and_order_are_litgpts(self):
        ours, theirs = pair(**GROUPED)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert all(ours.state_dict()[k].shape == v.shape for k, v in theirs.state_dict().items())

    @pytest.mark.parametrize("assign", [False, True])
    def test_round_trip_is_exact(self, assign):
        ours, theirs = pair(n_shared_expert=1, moe_intermediate_size=12)
        with torch.device("meta" if assign else "cpu"):
            again = MoE(ours.config)
        again.load_state_dict(theirs.state_dict(), strict=True, assign=assign)
        for name, value in ours.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
        again(torch.randn(1, 3, D))[0].sum().backward()

    def test_stack_is_the_inverse_of_unstack(self):
        experts = Experts(3, D, WIDTH)
        for a, b in zip(stack(unstack(*experts.parameters(), "p."), "p."), experts.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_missing_and_unexpected_keys_are_named(self):
        ours, _ = pair()
        state = dict(ours.state_dict())
        del state["experts.3.fc_2.weight"]
        state["experts.6.fc_1.weight"] = torch.zeros(1)
        with pytest.raises(RuntimeError) as error:
            ours.load_state_dict(state)
        assert 'Missing key(s) in state_dict: "experts.3.fc_2.weight".' in str(error.value)
        assert 'Unexpected key(s) in state_dict: "experts.6.fc_1.weight".' in str(error.value)
        assert "w13" not in str(error.value)

    def test_a_wrong_shape_is_named(self):
        ours, _ = pair()
        state = dict(ours.state_dict()) | {"experts.1.proj.weight": torch.zeros(D, WIDTH + 1)}
        with pytest.raises(RuntimeError, match=r"size mismatch for experts\.1\.proj\.weight"):
            ours.load_state_dict(state)

    def test_a_partial_state_dict_loads_what_it_has(self):
        ours, _ = pair()
        before = {k: v.clone() for k, v in ours.state_dict().items()}
        result = ours.load_state_dict({"experts.2.fc_1.weight": torch.ones(WIDTH, D)}, strict=False)
        after = ours.state_dict()
        assert sorted(result.missing_keys) == sorted(set(before) - {"experts.2.fc_1.weight"})
        assert result.unexpected_keys == []
        assert (after.pop("experts.2.fc_1.weight") == 1).all()
        assert all(torch.equal(value, before[name]) for name, value in after.items())

    def test_an_empty_state_dict_names_every_expert(self):
        with torch.device("meta"):
            ours = MoE(Config(**BASE))
        result = ours.load_state_dict({}, strict=False, assign=True)
        assert sorted(result.missing_keys) == sorted(ours.state_dict())


@pytest.mark.parametrize("changes", [{"bias": True}, {"n_expert_per_token": 7}, {"n_expert_per_token": 0}])
def test_configurations_that_cannot_work_are_refused(changes):
    with pytest.raises(LitMoEError, match=next(iter(changes))):
        MoE(Config(**BASE | changes))
