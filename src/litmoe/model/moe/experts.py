"""The experts' weights: stacks in memory, LitGPT's names in a state dict.

Shape suffixes: T tokens, K experts per token, E experts, D model width, I expert width; `w13_EID` and `w2_EDI` as
in `backends.py`.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from litmoe.model.moe.backends import BACKENDS, BackendName, choose_backend
from litmoe.model.moe.dispatch import Dispatch
from litmoe.model.precision import compute_dtype


class Experts(nn.Module):
    """E SwiGLU MLPs, stored as two stacks and known to a state dict by LitGPT's names, expert by expert."""

    recompute: bool = False
    """Training: keep only the input, and compute the pre-activations again in the backward."""
    backend: BackendName | None = None
    """How to multiply; None: by :func:`choose_backend`, from device and type of the input."""

    def __init__(self, n_expert: int, n_embd: int, width: int) -> None:
        super().__init__()
        self.w13_EID = nn.Parameter(torch.empty(n_expert, 2 * width, n_embd))
        self.w2_EDI = nn.Parameter(torch.empty(n_expert, n_embd, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As E times three `nn.Linear`."""
        for weight in (self.w13_EID, self.w2_EDI):
            bound = 1 / math.sqrt(weight.size(-1))
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x_TD: Tensor, weights_TK: Tensor, dispatch: Dispatch) -> Tensor:
        """Weighted sum of every token's experts, (T, D), in the type of `x_TD`."""
        backend = BACKENDS[self.backend_for(x_TD.device, compute_dtype(x_TD))]
        return backend.fused(x_TD, weights_TK, self.w13_EID, self.w2_EDI, dispatch, self.recompute)

    def backend_for(self, device: torch.device, dtype: torch.dtype) -> BackendName:
        """The backend that multiplies in this type on this device."""
        return self.backend or choose_backend(device, dtype, *self.w2_EDI.shape[1:])

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        stacks: dict[str, Tensor] = {}
        super()._save_to_state_dict(stacks, prefix, keep_vars)
        destination.update(unstack(stacks[f"{prefix}w13_EID"], stacks[f"{prefix}w2_EDI"], prefix))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Stack the experts found under LitGPT's names and load the stacks.

        What is missing or of the wrong shape is reported by LitGPT's name and keeps the value it has.
        """
        own = unstack(self.w13_EID.detach(), self.w2_EDI.detach(), prefix)
        found = {}
        for key, value in own.items():
            given = state_dict.pop(key, None)
            if given is None:
                missing_keys.append(key)
            elif given.shape != value.shape:
                shapes = f"{tuple(given.shape)} in the checkpoint, {tuple(value.shape)} in the model"
                error_msgs.append(f"size mismatch for {key}: {shapes}")
            else:
                found[key] = given
        if len(found) == len(own) or (found and not self.w13_EID.is_meta):
            state_dict[f"{prefix}w13_EID"], state_dict[f"{prefix}w2_EDI"] = stack(own | found, prefix)
        else:
            strict = False  # all that is missing has been named above
        args = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *args)


def unstack(w13_EID: Tensor, w2_EDI: Tensor, prefix: str) -> dict[str, Tensor]:
    """The stacks as LitGPT names them, `{prefix}{e}.fc_1.weight` and so on; views, no copies."""
    experts: dict[str, Tensor] = {}
    for e, (w13_ID, w2_DI) in enumerate(zip(w13_EID, w2_EDI, strict=True)):
        fc_1_ID, fc_2_ID = w13_ID.chunk(2)
        experts[f"{prefix}{e}.fc_1.weight"] = fc_1_ID
        experts[f"{prefix}{e}.fc_2.weight"] = fc_2_ID
        experts[f"{prefix}{e}.proj.weight"] = w2_DI
    return experts


def stack(experts: dict[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
    """The inverse of `unstack`, for a dictionary that holds every expert; copies."""
    n_expert = len(experts) // 3
    fc_1 = [experts[f"{prefix}{e}.fc_1.weight"] for e in range(n_expert)]
    fc_2 = [experts[f"{prefix}{e}.fc_2.weight"] for e in range(n_expert)]
    proj = [experts[f"{prefix}{e}.proj.weight"] for e in range(n_expert)]
    halves = [half for pair in zip(fc_1, fc_2, strict=True) for half in pair]
    return torch.cat(halves).view(n_expert, -1, fc_1[0].size(1)), torch.stack(proj)
