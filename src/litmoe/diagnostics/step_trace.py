"""One training step, followed by a memory trace: bytes by owner at the peak of each phase."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from litgpt.model import CausalSelfAttention, LLaMAMLP, MultiheadLatentAttention
from torch import Tensor, nn

from litmoe.diagnostics.memory_trace import MemoryTrace, Parts
from litmoe.model.gpt import Block
from litmoe.model.moe.experts import Experts
from litmoe.model.moe.layer import MoE
from litmoe.model.objective import Objective
from litmoe.optim.adamw import PIECES, AdamW
from litmoe.optim.base import PlainStateOptimizer
from litmoe.optim.muon import Muon
from litmoe.optim.offload import HostOptimizer
from litmoe.optim.state_size import tensors_in
from litmoe.training.run import Run
from litmoe.training.step import gradients, update

FORWARD, OPTIMIZER, HOST = "the forward", "the optimizer's step", "host"
"""Two of the moments of a step, and the kind of what is in host memory."""


def trace_step(run: Run, trace: MemoryTrace, alike: Callable[[Tensor], Hashable] | None = None) -> None:
    """Do one step of a run, with all its memory in the trace, by moment and kind.

    Args:
        run: its optimizer has its state.
        trace: a new one.
        alike: the optimizer updates only one of the parameters for which this is equal: if it updates them one
            after another, all take no more memory than one. None: it updates all.
    """
    # what is there before the step
    parameters = list(run.gpt.parameters())
    trace.hold(parameters, "parameters")
    trace.hold(run.gpt.buffers(), "rotary tables")
    trace.hold(tensors_in(run.optimizer.state_dict()), "optimizer state")
    if isinstance(run.optimizer.optimizer, HostOptimizer):
        inner = _inner(run.optimizer.optimizer)
        trace.hold(tensors_in([inner.param_groups, inner.state_dict()]), HOST)
    trace.hold((p.grad for p in parameters if p.grad is not None), "gradients")

    # the step
    with trace, trace.modules_of(run.objective), _moments_of(run, trace):
        figures = gradients(run, run.data())
        whole = [p for p in parameters if p.grad is not None]
        trace.hold((p.grad for p in whole if p.grad is not None), "gradients")
        trace.moment = OPTIMIZER
        skipped = []  # kept, so that their gradients stay in memory
        if alike is not None:
            largest_first = sorted(whole, key=lambda p: -p.numel())
            updated = {alike(p): p for p in largest_first}
            for parameter in whole:
                if parameter is not updated[alike(parameter)]:
                    skipped.append(parameter.grad)
                    parameter.grad = None
        update(run, figures, run.peak_lr)


def kind_of(module: nn.Module) -> str | None:
    """What the memory that a module allocates is for."""
    kinds: dict[str, tuple[type, ...]] = {
        "loss head": (Objective,),
        "embedding": (nn.Embedding,),
        "residual stream": (Block,),
        "attention": (CausalSelfAttention, MultiheadLatentAttention),
        "router": (MoE,),
        "experts": (Experts,),
        "MLP": (LLaMAMLP,),
    }
    if type(module).__name__ in ("RMSNorm", "LayerNorm"):
        return "norms"
    return next((kind for kind, classes in kinds.items() if isinstance(module, classes)), None)


def named(parts: Parts) -> Counter[str]:
    """Bytes by what they are for, as a plan names it."""
    names: Counter[str] = Counter()
    for (made, kind), n_bytes in parts.items():
        if made == FORWARD and kind != "loss head":
            names[f"activations: {kind}"] += n_bytes
        elif (made, kind) == ("", ""):
            names["batch"] += n_bytes
        else:
            names[kind if made in ("", FORWARD) or kind == "gradients" else "working memory"] += n_bytes
    return names


def make_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that the first step of an optimizer would make; its parameters have gradients."""
    inner = _inner(optimizer)
    if not isinstance(inner, PlainStateOptimizer):
        optimizer.step()
        return
    for group, parameter in inner.parameters():
        inner.state[parameter].update(inner.new_state(parameter, group))


def alike_to(optimizer: torch.optim.Optimizer) -> Callable[[Tensor], Hashable] | None:
    """Which parameters take the same working memory to update; None: the optimizer may update all at once.

    Updating a parameter of 10 million numbers in pieces takes thousands of operators: seconds on fake tensors.
    """
    inner = _inner(optimizer)
    if isinstance(inner, AdamW) and not isinstance(inner, Muon):
        return lambda parameter: min(parameter.numel(), PIECES["cpu"])
    return (lambda parameter: parameter.shape) if isinstance(inner, PlainStateOptimizer) else None


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return optimizer.inner if isinstance(optimizer, HostOptimizer) else optimizer


@contextmanager
def _moments_of(run: Run, trace: MemoryTrace) -> Iterator[None]:
    """Keeps the trace's moment up to date: which gradients have arrived says where the backward is."""

    def on_gradient_of(output: Any, moment: str) -> None:
        def arrived(_: Tensor) -> None:
            trace.moment = moment

        tensor = output[0] if isinstance(output, tuple) else output
        if trace.moment == FORWARD and tensor.requires_grad:  # else a recomputed block, in the backward
            tensor.register_hook(arrived)

    def begins(*_: Any) -> None:
        trace.moment = FORWARD

    def ends(*_: Any) -> None:
        trace.moment = "the backward of the loss head"

    def name(moment: str) -> Any:
        return lambda _module, _inputs, output: on_gradient_of(output, moment)

    blocks = list(run.gpt.transformer.h)
    names = ["first", *["middle"] * (len(blocks) - 2), "last"][-len(blocks) :]
    handles = [
        run.objective.register_forward_pre_hook(begins),
        run.objective.register_forward_hook(ends),
        run.gpt.transformer.wte.register_forward_hook(name("the backward of the embedding, and clipping")),
        *(
            block.register_forward_hook(name(f"the backward of the {which} block"))
            for block, which in zip(blocks, names, strict=True)
        ),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
