"""The optimizer's step inside the backward: no two gradients are in memory at once."""

import torch
from torch import Tensor


class StepInBackward:
    """Updates every parameter as soon as backward has its whole gradient, and frees the gradient.

    The update equals that of the same optimizer after the backward, to the bit. Nothing can depend on all
    gradients together, such as clipping, and no step can be skipped afterwards.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """
        Args:
            optimizer: its step must skip parameters without a gradient, as torch's all do.
        """
        self.optimizer = optimizer
        self._norms: list[Tensor] = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(self._update)

    def take_norm(self) -> Tensor:
        """The norm of all gradients since the last call, a scalar."""
        norms, self._norms = self._norms, []
        return torch.linalg.vector_norm(torch.stack(norms))

    def _update(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._norms.append(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))
        self.optimizer.step()  # of this one parameter: no other has a gradient now
        parameter.grad = None
