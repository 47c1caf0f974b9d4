"""Padded and masked positions: they count in no loss and no statistic, however a batch is cut."""

import pytest
import torch
from litgpt import Config
from torch import Tensor

from litmoe.model.config import with_correction_bias
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.objective import IGNORED, Objective, StepLosses, n_targets

E, K, V = 4, 2, 61
CONFIG = Config(
    block_size=32,
    vocab_size=V,
    padded_vocab_size=V,
    n_layer=2,
    n_embd=16,
    n_head=2,
    mlp_class_name="LLaMAMoE",
    n_expert=E,
    n_expert_per_token=K,
    intermediate_size=20,
    norm_class_name="RMSNorm",
    bias=False,
)
LENGTHS = [3, 17, 9, 1]
"""Of the documents; a batch pads them to the longest."""


@pytest.fixture(params=["softmax", "sigmoid"])
def objective(request: pytest.FixtureRequest) -> Objective:
    torch.manual_seed(0)
    model = GPT(CONFIG if request.param == "softmax" else with_correction_bias(CONFIG))
    initialize(model, seed=1)
    for block in model.transformer.h:
        block.mlp.gate.weight.data.mul_(8)  # or all probabilities would be near 1/E, whatever counts
    return Objective(model, switch_coefficient=0.3, z_coefficient=0.2, head_z_coefficient=0.1)


def documents() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randint(V, (1, n)), torch.randint(V, (1, n))) for n in LENGTHS]


def padded(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The documents as one batch; its padding is a token like any other, with targets that are ignored."""
    longest = max(inputs.size(1) for inputs, _ in batch)
    inputs_BT = torch.full((len(batch), longest), 7)
    targets_BT = torch.full((len(batch), longest), IGNORED)
    for row, (inputs, targets) in enumerate(batch):
        inputs_BT[row, : inputs.size(1)], targets_BT[row, : targets.size(1)] = inputs, targets
    return inputs_BT, targets_BT


def mean_over_targets(
    objective: Objective, batches: list[tuple[Tensor, Tensor]], masked: bool
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses and gradients of a global batch that is cut into these micro-batches."""
    load_LE = torch.tensor([[9, 3, 1, 5], [2, 2, 8, 1]])
    total = sum(int(n_targets(targets)) for _, targets in batches)
    sums: dict[str, Tensor] = {}
    objective.zero_grad()
    for inputs_BT, targets_BT in batches:
        losses: StepLosses = objective(inputs_BT, targets_BT, load_LE, masked)
        share = n_targets(targets_BT) / total
        (losses.total * share).backward()
        for name, value in losses._asdict().items():
            part = value if name == "counts_LE" else value.detach() * share
            sums[name] = sums.get(name, 0) + part
    return sums, [parameter.grad.clone() for parameter in objective.parameters()]


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_padding_is_as_if_it_were_not_there(objective: Objective, recompute: str) -> None:
    """Every document alone and unpadded, against batches of any cut: attention looks back only."""
    batch = documents()
    expected, gradients = mean_over_targets(objective, batch, masked=False)
    assert expected["counts_LE"].sum(1).tolist() == [sum(LENGTHS) * K] * 2
    objective.model.set_recompute(recompute)  # type: ignore[arg-type]
    for cut in ([batch], [batch[:2], batch[2:]], [batch[:1], batch[1:]]):
        found, found_gradients = mean_over_targets(objective, [padded(part) for part in cut], masked=True)
        assert torch.equal(found["counts_LE"], expected["counts_LE"])
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=name)
        for actual, wanted in zip(found_gradients, gradients, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-6)


def test_masks_that_hide_nothing_change_nothing(objective: Objective) -> None:
    inputs_BT, targets_BT = torch.randint(V, (2, 3, 11))
    plain, masked = objective(inputs_BT, targets_BT), objective(inputs_BT, targets_BT, masked=True)
    for name, value in plain._asdict().items():
        torch.testing.assert_close(getattr(masked, name), value, msg=name)


def test_a_masked_prompt_is_seen_by_what_follows_it_and_counts_nowhere(objective: Objective) -> None:
    inputs_BT, targets_BT = torch.randint(V, (2, 1, 12))
    targets_BT[:, :5] = IGNORED
    losses = objective(inputs_BT, targets_BT, masked=True)
    assert losses.counts_LE.sum(1).tolist() == [7 * K] * 2
    changed = inputs_BT.clone()
    changed[0, 2] = (changed[0, 2] + 1) % V
    assert objective(changed, targets_BT, masked=True).cross_entropy != losses.cross_entropy


def test_a_batch_without_a_target_has_no_loss_and_no_gradient(objective: Objective) -> None:
    inputs_BT = torch.randint(V, (2, 9))
    losses = objective(inputs_BT, torch.full_like(inputs_BT, IGNORED), masked=True)
    losses.total.backward()
    assert all(float(value.detach().abs().sum()) == 0 for value in losses)
    assert all(not parameter.grad.any() for parameter in objective.parameters())
