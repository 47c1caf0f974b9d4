"""Optimizers by name: those of torch that can do a step, and why the others cannot."""

import inspect

import pytest
import torch
from torch import nn

from litmoe.config import ClassSpec
from litmoe.errors import ConfigError
from litmoe.optim.build import make_optimizer

NAMES = [
    name
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
]
REFUSED = {
    "LBFGS": "evaluates the loss several times per step",
    "SparseAdam": "does not support dense gradients",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_every_optimizer_of_torch_does_a_step_or_is_refused(name: str, precision: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)  # where no update is lost to rounding
    if precision == "bf16-true":
        model.bfloat16()
    spec = ClassSpec(name, {"lr": 0.01})
    if name in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name]):
            make_optimizer(spec, model, precision)
        return
    optimizer = make_optimizer(spec, model, precision)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_trying_a_step_leaves_the_model_and_its_optimizer_untouched() -> None:
    model = nn.Linear(3, 4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make_optimizer(ClassSpec("Adam", {"lr": 0.01}), model, "32-true")
    assert not optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
