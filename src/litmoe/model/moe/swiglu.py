"""SwiGLU (arXiv 2002.05202) on the two halves of one product, and its gradient.

Shape suffixes: N rows, I expert width. `h13_NI`, (N, 2I), holds the products with fc_1 beside those with fc_2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu(h13_NI: Tensor) -> Tensor:
    """`silu(h1) * h3`, (N, I)."""
    h1_NI, h3_NI = h13_NI.chunk(2, dim=1)
    return F.silu(h1_NI).mul_(h3_NI)


def swiglu_backward(da_NI: Tensor, h13_NI: Tensor) -> tuple[Tensor, Tensor]:
    """The activation again, (N, I), and the gradient of `h13_NI`, (N, 2I); the arguments stay as they are."""
    h1_NI, h3_NI = h13_NI.chunk(2, dim=1)
    dh13_NI = torch.empty_like(h13_NI)
    dh1_NI, dh3_NI = dh13_NI.chunk(2, dim=1)
    silu_NI = F.silu(h1_NI)
    torch.mul(da_NI, silu_NI, out=dh3_NI)
    torch.mul(da_NI, h3_NI, out=dh1_NI)
    torch.ops.aten.silu_backward.grad_input(dh1_NI, h1_NI, grad_input=dh1_NI)
    return silu_NI.mul_(h3_NI), dh13_NI
