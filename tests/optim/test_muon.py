"""Muon against torch's, matrix by matrix."""

import pytest
import torch
import torch.nn.functional as F

from litmoe.optim import AdamW, Muon
from litmoe.optim.muon import orthogonalised

ARGUMENTS = {"lr": 1e-2, "weight_decay": 0.1}


def steps(optimizers, parameters, n: int = 3) -> None:
    for step in range(n):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("shape", [(40, 40), (40, 60), (60, 24), (1, 8)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_a_single_matrix_is_torchs(shape, nesterov: bool) -> None:
    """torch multiplies in bf16, hence the tolerance: a hundredth of the update."""
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    own = Muon([ours], nesterov=nesterov, **ARGUMENTS)
    torchs = torch.optim.Muon([theirs], nesterov=nesterov, adjust_lr_fn="match_rms_adamw", **ARGUMENTS)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        theirs.grad = ours.grad.clone()
        own.step(), torchs.step()
    assert (ours - theirs).norm() < 0.02 * (start - theirs).norm()


def test_the_experts_of_a_stack_are_single_matrices() -> None:
    """A stack (E, 2I, D) as two times E, and the rows of a joint projection each by itself."""
    E, width, D = 3, 10, 8
    torch.manual_seed(0)
    stack = torch.nn.Parameter(torch.randn(E, 2 * width, D))
    joint = torch.nn.Parameter(torch.randn(8 + 4 + 4, D))
    halves = [torch.nn.Parameter(half.detach().clone()) for w in stack for half in w.chunk(2)]
    rows = [torch.nn.Parameter(part.detach().clone()) for part in joint.split([8, 4, 4])]
    groups = [{"params": [stack], "matrices": (width, width)}, {"params": [joint], "matrices": (8, 4, 4)}]
    together, alone = Muon(groups, **ARGUMENTS), Muon([*halves, *rows], **ARGUMENTS)
    for _ in range(3):
        stack.grad, joint.grad = torch.randn_like(stack), torch.randn_like(joint)
        for half, grad in zip(halves, [g for w in stack.grad for g in w.chunk(2)], strict=True):
            half.grad = grad.clone()
        for part, grad in zip(rows, joint.grad.split([8, 4, 4]), strict=True):
            part.grad = grad.clone()
        together.step(), alone.step()
    torch.testing.assert_close(torch.cat(halves).view_as(stack), stack.detach())
    torch.testing.assert_close(torch.cat(rows), joint.detach())


def test_experts_in_pieces_are_experts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for piece in (1, 2 * 12 * 8, 1 << 20):
        monkeypatch.setattr("litmoe.optim.muon.PIECE", piece)
        torch.manual_seed(0)
        stack = torch.nn.Parameter(torch.randn(5, 12, 8))
        optimizer = Muon([stack], **ARGUMENTS)
        for _ in range(2):
            stack.grad = torch.randn_like(stack)
            optimizer.step()
        results.append(stack.detach())
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])


def test_singular_values_become_about_one() -> None:
    torch.manual_seed(0)
    matrices_MRD = torch.randn(8, 30, 20)
    values = torch.linalg.svdvals(orthogonalised(matrices_MRD, 5))
    assert values.min() > 0.5 and values.max() < 1.3
    u, _, vt = torch.linalg.svd(matrices_MRD, full_matrices=False)
    cosines = F.cosine_similarity(orthogonalised(matrices_MRD, 5).flatten(1), (u @ vt).flatten(1), dim=-1)
    assert cosines.min() > 0.95
    assert not orthogonalised(torch.zeros(2, 3, 4), 5).any()


def test_what_is_no_matrix_is_adamws() -> None:
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(50, 4)) for _ in range(2))
    own = Muon([{"params": [ours], "matrices": None}], betas=(0.9, 0.99), **ARGUMENTS)
    adamw = AdamW([theirs], betas=(0.9, 0.99), **ARGUMENTS)
    for _ in range(3):
        ours.grad = torch.randn(50, 4)
        theirs.grad = ours.grad.clone()
        own.step(), adamw.step()
    assert torch.equal(ours, theirs)


def test_bf16_takes_six_bytes_and_goes_on_to_the_bit(tmp_path) -> None:
    torch.manual_seed(0)
    start = torch.randn(40, 60).bfloat16()
    whole, parts = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer, first = Muon([whole], **ARGUMENTS), Muon([parts], **ARGUMENTS)
    grads = [torch.randn(40, 60).bfloat16() for _ in range(4)]
    for number, grad in enumerate(grads):
        whole.grad, parts.grad = grad.clone(), grad.clone()
        optimizer.step(), first.step()
        if number == 1:
            torch.save(first.state_dict(), tmp_path / "state")
            first = Muon([parts], **ARGUMENTS)
            first.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert torch.equal(whole, parts)
    assert optimizer.state[whole]["momentum_buffer"].nbytes == 2 * whole.numel()


@pytest.mark.parametrize("matrices", [(), (3, 3)])
def test_what_does_not_consist_of_matrices_is_refused(matrices) -> None:
    shape = (5,) if matrices == () else (5, 4)
    with pytest.raises(ValueError, match="has no matrices"):
        Muon([torch.nn.Parameter(torch.ones(shape))], matrices=matrices)
