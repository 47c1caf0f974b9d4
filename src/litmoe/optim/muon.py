"""Muon: orthogonalised momentum, for every matrix between the embeddings.

Keller Jordan, "Muon: an optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon), with the step size of Moonlight (arXiv 2502.16982), so that one
learning rate and weight decay serve AdamW's parameters too.

Shape suffixes: M matrices, R rows, D columns.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from litmoe.optim.adamw import AdamW, check_ranges, check_shares, new_moments, update_adamw
from litmoe.optim.base import PlainStateOptimizer
from litmoe.optim.rounding import Noise, write

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of Keller Jordan's quintic iteration: steep at zero, and within 0.7 to 1.2 after five rounds."""

PIECE = 1 << 22
"""Numbers updated together: as many matrices of a stack as that makes, at least one."""


class Muon(AdamW):
    """Muon for matrices and AdamW for everything else, in one optimizer.

    A group's ``matrices`` says how its parameters divide into matrices along the second to last dimension: the
    rows of each matrix in order; ``()``: a single matrix; None: AdamW updates these parameters. Dimensions before
    the last two count matrices, such as experts. Every matrix is orthogonalised separately.

    6 bytes per bf16 matrix parameter with weight and gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        *,
        matrices: tuple[int, ...] | None = (),
        stochastic_rounding: bool = True,
        seed: int = 0,
    ) -> None:
        """
        Args:
            params: parameters, or groups of them.
            lr: learning rate, of the size usual for AdamW.
            momentum: decay of the mean gradient, from 0 to below 1.
            nesterov: look one step of momentum ahead.
            ns_steps: rounds of Newton-Schulz.
            weight_decay: fraction of a weight subtracted per step, times ``lr``.
            betas: AdamW's, for its groups.
            eps: AdamW's, for its groups.
            matrices: of groups that do not set it.
            stochastic_rounding: for bf16 weights and moments; otherwise they are rounded to nearest.
            seed: of the rounding.

        Raises:
            ValueError: arguments out of range, or a parameter that does not divide into such matrices.
        """
        check_ranges(lr=lr, eps=eps, weight_decay=weight_decay, ns_steps=ns_steps)
        check_shares(momentum=momentum, betas=betas)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "weight_decay": weight_decay,
            "betas": tuple(betas),
            "eps": eps,
            "matrices": matrices,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        PlainStateOptimizer.__init__(self, params, defaults)
        for group, parameter in self.parameters():
            rows = group["matrices"]
            if rows is not None and (parameter.ndim < 2 or (rows and sum(rows) != parameter.size(-2))):
                raise ValueError(
                    f"a parameter of shape {tuple(parameter.shape)} has no matrices of {rows} rows"
                )

    def new_state(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        if group["matrices"] is None:
            return new_moments(parameter, None)
        return {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(parameter)}

    def update(
        self, parameter: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any], number: int
    ) -> None:
        state["step"] += 1
        noise = self.noise(parameter, state, group, number)
        if group["matrices"] is None:
            update_adamw(parameter, grad, state, group, noise)
            return
        shape = (-1, *parameter.shape[-2:])
        tensors = (parameter.view(shape), grad.reshape(shape), state["momentum_buffer"].view(shape))
        together = max(1, PIECE // tensors[0][0].numel())
        for weight_MRD, grad_MRD, mean_MRD in zip(*(t.split(together) for t in tensors), strict=True):
            _update_matrices(weight_MRD, grad_MRD, mean_MRD, group, noise)


def _update_matrices(
    weight_MRD: Tensor, grad_MRD: Tensor, mean_MRD: Tensor, group: dict[str, Any], noise: Noise | None
) -> None:
    """One step of some of a parameter's matrices, in place."""
    momentum = group["momentum"]
    grad = grad_MRD.float()
    mean = mean_MRD.float().lerp(grad, 1 - momentum)
    write(mean_MRD, mean, noise)
    direction = grad.lerp(mean, momentum) if group["nesterov"] else mean
    weight = weight_MRD.float().mul(1 - group["lr"] * group["weight_decay"])
    rows = list(group["matrices"]) or [weight.size(1)]
    for part, matrix in zip(direction.split(rows, 1), weight.split(rows, 1), strict=True):
        # Moonlight: updates get the root mean square of AdamW's, about 0.2, whatever their shape
        size = group["lr"] * 0.2 * math.sqrt(max(part.shape[1:]))
        matrix.sub_(orthogonalised(part, group["ns_steps"]), alpha=size)
    write(weight_MRD, weight, noise)


def orthogonalised(matrices_MRD: Tensor, steps: int) -> Tensor:
    """Approximately U V^T of every matrix U S V^T, (M, R, D) fp32: singular values become 0.7 to 1.2.

    A matrix of zeros stays zero. On CUDA products are in bf16, the cheapest type there and exact enough.
    """
    a, b, c = COEFFICIENTS
    x_MRD = matrices_MRD.to(torch.bfloat16 if matrices_MRD.device.type == "cuda" else torch.float32)
    tall = x_MRD.size(1) > x_MRD.size(2)
    if tall:
        x_MRD = x_MRD.mT
    x_MRD = x_MRD / torch.linalg.matrix_norm(x_MRD, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram_MRR = x_MRD @ x_MRD.mT
        x_MRD = torch.baddbmm(
            x_MRD, torch.baddbmm(gram_MRR, gram_MRR, gram_MRR, beta=b, alpha=c), x_MRD, beta=a
        )
    return (x_MRD.mT if tall else x_MRD).float()
