"""What is computed in fp32 whatever the precision: router, norms' arithmetic, and the loss."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from litgpt import Config
from litgpt.model import RMSNorm
from support.small import MODEL

from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.moe.layer import MoE
from litmoe.model.objective import Objective

PRECISIONS = {
    "32-true": (torch.float32, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "bf16-true": (torch.bfloat16, None),
    "16-mixed": (torch.float32, torch.float16),
}
"""Types of the parameters, and of autocast's products."""


def noted(precision: str):
    """Inputs and outputs of norms and MoE layers, the last hidden states, and the losses of one micro-batch."""
    dtype, autocast = PRECISIONS[precision]
    model = GPT(Config(**MODEL))
    initialize(model, seed=0)
    model.to(dtype)
    calls: list[tuple[torch.nn.Module, torch.Tensor, object]] = []
    for module in model.modules():
        if isinstance(module, MoE | RMSNorm):
            module.register_forward_hook(lambda m, args, out: calls.append((m, args[0].detach(), out)))
    tokens = torch.randint(0, 512, (2, 65), generator=torch.Generator().manual_seed(0))
    context = torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext()
    with context:
        losses = Objective(model)(tokens[:, :-1], tokens[:, 1:], torch.ones(2, 4))
    losses.total.backward()
    return model, calls, losses, tokens[:, 1:]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_router_norms_and_loss_are_fp32(precision: str) -> None:
    model, calls, losses, targets = noted(precision)
    for module, x_BTD, out in calls:
        if isinstance(module, MoE):
            # to the last bits of fp32, from the layer's own input and the gate's own weights; a product in bf16 or
            # fp16 is a thousand times further away
            expected = x_BTD.flatten(0, 1).double() @ module.gate.weight.double().T
            routing = out[1]
            torch.testing.assert_close(routing.logits_TE.double(), expected, rtol=1e-5, atol=1e-6)
            values = (routing.weights_TK, routing.p_E, routing.z, routing.entropy)
            assert all(value.dtype == torch.float32 for value in values)
        else:
            wide = x_BTD.double()
            exact = (
                wide * (wide.square().mean(-1, keepdim=True) + module.eps).rsqrt() * module.weight.double()
            )
            # rounded once at the end, by half a unit in the last place, and before it by some units of fp32's
            units = 0.5 * torch.finfo(out.dtype).eps + 3 * torch.finfo(torch.float32).eps
            assert ((out.double() - exact).abs() <= units * exact.abs()).all()
    hidden = next(out for module, _, out in reversed(calls) if module is model.transformer.ln_f)
    product = PRECISIONS[precision][1] or hidden.dtype
    logits = F.linear(hidden.to(product), model.lm_head.weight.to(product))
    exact = F.cross_entropy(logits.double().flatten(0, 1), targets.flatten())
    assert all(value.dtype == torch.float32 for value in losses if value.is_floating_point())
    assert losses.cross_entropy.item() == pytest.approx(exact.item(), rel=3e-7)
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())
