"""Whether ``torch.compile`` works on a machine: it needs a C++ compiler for a CPU, and Triton for a GPU."""

import torch

from litmoe.config_files import one_line


def compile_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in one line; None where it can. Takes seconds: it is tried."""

    def next_number(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    try:
        torch.compile(next_number, fullgraph=True)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler, or the lack of one, raises
        return one_line(error)[:200]
    return None
