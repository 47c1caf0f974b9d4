"""Whether ``torch.compile`` works on a machine: it needs a C++ compiler for a CPU, and Triton for a GPU."""

from collections.abc import Callable

import torch

from litmoe.config import TrainConfig
from litmoe.messages import one_line


def settle_compile(config: TrainConfig, device: torch.device, say: Callable[[str], None]) -> None:
    """Switch ``compile`` off, and say so, where nothing can be compiled."""
    if config.compile and (problem := compile_problem(device)) is not None:
        say(f"compile: torch.compile does not work here, and the run goes on without it ({problem})")
        config.compile = False


def compile_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in one line; None where it can. Takes seconds: it is tried."""

    def next_number(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    try:
        torch.compile(next_number, fullgraph=True)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler, or the lack of one, raises
        return one_line(error)[:200]
    return None
