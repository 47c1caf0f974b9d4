"""The same optimizers in host memory, and inside the backward."""

from typing import Any

import pytest
import torch

from litmoe.optim import AdamW, AdamW8bit, Muon
from litmoe.optim.in_backward import StepInBackward
from litmoe.optim.offload import HostOptimizer
from litmoe.optim.state_size import state_shapes


def model(dtype=torch.float32) -> torch.nn.Sequential:
    """With a weight that is used twice."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 300), torch.nn.SiLU(), torch.nn.Linear(300, 16)]
    return torch.nn.Sequential(*layers, *layers).to(dtype)


def loss_of(net: torch.nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(step)).to(next(net.parameters()).dtype)
    return (net(x) - 1).square().mean()


OPTIMIZERS = {
    "torch's AdamW": lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    "torch's SGD": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
    "AdamW": lambda groups: AdamW(groups, lr=1e-2),
    "AdamW8bit": lambda groups: AdamW8bit(groups, lr=1e-2),
    "Muon": lambda groups: Muon(groups, lr=1e-2),
}


def groups_of(net: torch.nn.Module) -> list[dict[str, Any]]:
    """Matrices, and vectors, which are not Muon's."""
    params = list(net.parameters())
    matrices, vectors = ([p for p in params if p.ndim == ndim] for ndim in (2, 1))
    return [{"params": matrices}, {"params": vectors, "matrices": None, "weight_decay": 0.0}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_in_the_backward_is_the_step_after_it(name: str, dtype: torch.dtype) -> None:
    after, during = model(dtype), model(dtype)
    optimizer = OPTIMIZERS[name](groups_of(after))
    in_backward = StepInBackward(OPTIMIZERS[name](groups_of(during)))
    for step in range(4):
        loss_of(during, step).backward()
        assert all(parameter.grad is None for parameter in during.parameters())
        loss_of(after, step).backward()
        norm = torch.nn.utils.get_total_norm(p.grad.float() for p in after.parameters())
        torch.testing.assert_close(in_backward.take_norm(), norm)
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), during.parameters(), strict=True))


def test_gradients_are_not_in_memory_together() -> None:
    """The most bytes of gradients that live at once: about the largest, not the sum."""
    net = torch.nn.Sequential(*(torch.nn.Linear(64, 64, bias=False) for _ in range(10)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    StepInBackward(optimizer)
    alive = []
    for parameter in net.parameters():
        parameter.register_hook(lambda grad: alive.append(sum(p.grad is not None for p in net.parameters())))
    net(torch.randn(4, 64)).sum().backward()
    assert alive == [0] * 10


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_the_host_it_is_the_same_optimizer(name: str) -> None:
    plain, offloaded = model(), model()
    optimizer = OPTIMIZERS[name](groups_of(plain))
    host = HostOptimizer(groups_of(offloaded), OPTIMIZERS[name])
    for step in range(4):
        for group in (*optimizer.param_groups, *host.param_groups):
            group["lr"] = 0.01 / (step + 1)
        for net, own in ((plain, optimizer), (offloaded, host)):
            loss_of(net, step).backward()
            own.step()
            own.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), offloaded.parameters(), strict=True))


def test_on_the_host_bf16_weights_are_updated_in_fp32() -> None:
    """Against fp32 weights that get the same gradients; and the state goes on to the bit."""
    net = model(torch.bfloat16)
    make = OPTIMIZERS["torch's AdamW"]
    host = HostOptimizer(groups_of(net), make)
    foretold = [(t.shape, t.dtype) for t in state_shapes(host)]
    twin = model(torch.bfloat16).float()
    masters = list(twin.parameters())
    optimizer = make(groups_of(twin))
    for step in range(6):
        loss_of(net, step).backward()
        for master, parameter in zip(masters, net.parameters(), strict=True):
            master.grad = parameter.grad.float()
        host.step(), optimizer.step()
        host.zero_grad()
        if step == 2:
            state = host.state_dict()
            shapes = [(t.shape, t.dtype) for values in state["state"].values() for t in values.values()]
            shapes += [(t.shape, t.dtype) for t in state["master"].values()]
            assert sorted(map(str, shapes)) == sorted(map(str, foretold))
            host = HostOptimizer(groups_of(net), make)
            host.load_state_dict(state)
    for master, parameter in zip(masters, net.parameters(), strict=True):
        assert torch.equal(master.bfloat16(), parameter)
    assert any(not torch.equal(m, p.float()) for m, p in zip(masters, net.parameters(), strict=True))


def test_weights_loaded_in_between_are_what_goes_on() -> None:
    net, other = model(), model()
    host = HostOptimizer(groups_of(net), OPTIMIZERS["torch's SGD"])
    loss_of(net, 0).backward()
    host.step()
    state = host.state_dict()
    with torch.no_grad():
        net.load_state_dict({name: weight * 0 for name, weight in other.state_dict().items()})
    host.load_state_dict(state)
    net[0].weight.grad = torch.zeros_like(net[0].weight)
    host.step()
    expected = -0.01 * 0.9 * state["state"][0]["momentum_buffer"]
    torch.testing.assert_close(net[0].weight.detach(), expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_can_be_scaled(name: str) -> None:
    """As 16-mixed does: a step whose scaled gradients overflow is left out, on the host too."""
    nets = [model() for _ in range(3)]
    host = HostOptimizer(groups_of(nets[2]), OPTIMIZERS[name])
    optimizers = [OPTIMIZERS[name](groups_of(nets[0])), OPTIMIZERS[name](groups_of(nets[1])), host]
    for step in range(3):
        overflow = step == 1
        for number, (net, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            loss = loss_of(net, step)
            if number == 0:
                loss.backward()
                if not overflow:
                    optimizer.step()
            else:
                scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
                scaler.scale(loss * torch.inf if overflow else loss).backward()
                scaler.unscale_(optimizer)
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()
    for a, b, c in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, b)
