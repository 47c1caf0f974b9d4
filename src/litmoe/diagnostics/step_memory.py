"""How much memory a training step will take, from a step that takes none.

The step is the run's own (`litmoe.training.step`), on fake tensors: they have shapes, types and storages of a
size, but no bytes, and no arithmetic is done. What the step keeps and when it lets go is so read off the code
that trains, whatever the optimizer, the precision or the recomputation. Blocks are alike, and memory is linear in
their number at every moment of a step: two and three of them are traced, and the rest are reckoned.

It is a CPU's step. On CUDA the same tensors live and die, with these differences: kernels of attention need other
working memory within themselves; experts that are multiplied as one group (bf16, compute capability 9 and 10) keep
their working memory for all of them at once; torch's optimizers without a fused step may work on all parameters at
once, with copies of them; compiled blocks may keep other activations; and the allocator rounds to 512 bytes and
leaves gaps. `FRAMEWORK` allows for the small ones.
"""

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import HalfPrecision, MixedPrecision, Precision
from litgpt import Config
from litgpt.model import CausalSelfAttention, LLaMAMLP, MultiheadLatentAttention
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.data.windows import Batch
from litmoe.diagnostics.memory_trace import MemoryTrace, Parts, peaks
from litmoe.model.gpt import Block
from litmoe.model.moe.experts import Experts
from litmoe.model.moe.layer import MoE
from litmoe.model.objective import Objective
from litmoe.optim.adamw import PIECES, AdamW
from litmoe.optim.base import PlainStateOptimizer
from litmoe.optim.muon import Muon
from litmoe.optim.offload import HostOptimizer
from litmoe.optim.quantize import make_tables
from litmoe.training.run import Run
from litmoe.training.schedule import Horizon
from litmoe.training.setup import assemble, model_and_length
from litmoe.training.step import gradients, update

FULLEST = 3.0
"""Tokens of the fullest expert over the mean that are planned for: 2.6 and 3.6 were seen at the end of runs with
and without the Switch loss (docs/concepts/balance.md), 3.3 in the first steps of a small model."""

FRAMEWORK = 500_000_000
"""Bytes that CUDA's context and torch's libraries take on a GPU besides, cuBLAS's workspace and what the allocator
rounds up included: assumed, 300 to 500 MB are usual."""

FORWARD, OPTIMIZER, HOST = "the forward", "the optimizer's step", "host"


@dataclass(frozen=True)
class StepMemory:
    """Bytes on the device when most of them are in use."""

    parts: dict[str, int]
    """By what they are for."""
    moment: str
    """When that is."""
    host: int = 0
    """Bytes that the optimizer takes in the host's memory instead."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def foresee(config: TrainConfig, fullest: float = FULLEST) -> StepMemory:
    """The memory of a step in the middle of a run, without allocating any.

    Args:
        config: the run's, with its precision settled.
        fullest: tokens of the fullest expert over the mean of all.

    Raises:
        LitMoEError: a model or optimizer that cannot work.
    """
    model_config, seq_length = model_and_length(config)
    depth = model_config.n_layer
    if depth <= 3 or not _alike(model_config):
        moments = _moments(config, model_config, seq_length, fullest)
    else:
        two, three = (
            _moments(config, replace(model_config, n_layer=n_layer), seq_length, fullest)
            for n_layer in (2, 3)
        )
        # A block between takes more than both its neighbours at no time: it is never the peak of its own.
        moments = {moment: _at_depth(depth, parts, three[moment]) for moment, parts in two.items()}
    moment, parts = max(moments.items(), key=lambda item: item[1].total() - item[1][HOST])
    host = parts.pop(HOST, 0)
    return StepMemory(dict(parts.most_common()), moment, host)


def trace_step(run: Run, trace: MemoryTrace, alike: Callable[[Tensor], Hashable] | None = None) -> None:
    """One step of a run, with all its memory in the trace, by moment and kind.

    Args:
        run: the run; its optimizer has its state.
        trace: a new one.
        alike: of parameters for which this is equal, the optimizer updates one only: where it works on one at a
            time, all of them take no more memory. None: it updates all.
    """
    parameters = list(run.gpt.parameters())
    trace.hold(parameters, "parameters")
    trace.hold(run.gpt.buffers(), "rotary tables")
    trace.hold(checkpoint.tensors_in(run.optimizer.state_dict()), "optimizer state")
    if isinstance(run.optimizer.optimizer, HostOptimizer):
        inner = _inner(run.optimizer.optimizer)
        trace.hold(checkpoint.tensors_in([inner.param_groups, inner.state_dict()]), HOST)
    trace.hold((p.grad for p in parameters if p.grad is not None), "gradients")
    with trace, trace.modules_of(run.objective), _moments_of(run, trace):
        figures = gradients(run, run.data())
        whole = [p for p in parameters if p.grad is not None]
        trace.hold((p.grad for p in whole if p.grad is not None), "gradients")
        trace.moment = OPTIMIZER
        passed_over = []
        if alike is not None:
            largest_first = sorted(whole, key=lambda p: -p.numel())
            updated = {alike(p): p for p in largest_first}
            for parameter in whole:
                if parameter is not updated[alike(parameter)]:
                    passed_over.append(parameter.grad)
                    parameter.grad = None
        update(run, figures, run.peak_lr)


def kind_of(module: nn.Module) -> str | None:
    """What a module's memory is for."""
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


def _moments(
    config: TrainConfig, model_config: Config, seq_length: int, fullest: float
) -> dict[str, Counter[str]]:
    """Whose the bytes are at the peak of every moment of a step on fake tensors.

    Of a global batch of several micro-batches one is traced, with the gradients of those before it there already.
    """
    several = config.train.global_batch_size > config.train.micro_batch_size
    train = replace(config.train, global_batch_size=config.train.micro_batch_size)
    config = replace(config, train=train, compile=False)  # a compiler needs values
    size = (train.micro_batch_size, seq_length)
    load = _Load(size[0] * size[1], model_config.n_expert_per_token, model_config.n_expert, fullest)
    trace = MemoryTrace(kind_of)
    make_tables(torch.device("cpu"))  # which are kept for later, and must not be fake
    with FakeTensorMode(allow_non_fake_inputs=True), load:
        text = RandomText(size, model_config.vocab_size)
        one_step = Horizon(steps=1, warmup_steps=0, tokens_per_step=size[0] * size[1])
        run = assemble(config, _FakeFabric(config.precision), model_config, seq_length, text, one_step)
        for parameter in run.gpt.parameters():
            parameter.grad = torch.zeros_like(parameter)
        make_state(run.optimizer.optimizer)
        if not several:
            run.optimizer.zero_grad()
        trace_step(run, trace, _alike_to(run.optimizer.optimizer))
    moments = peaks(trace.log)
    if config.memory.offload_optimizer:
        moments.pop(OPTIMIZER, None)  # the host's, where there is more
    return {moment: named(parts) for moment, parts in moments.items()}


def make_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimizer, whose parameters have gradients, to where its first step would."""
    inner = _inner(optimizer)
    if not isinstance(inner, PlainStateOptimizer):
        optimizer.step()
        return
    for group, parameter in inner.parameters():
        inner.state[parameter].update(inner.new_state(parameter, group))


def _alike_to(optimizer: torch.optim.Optimizer) -> Callable[[Tensor], Hashable] | None:
    """Which parameters take the same working memory to update, one by one; None: it may work on all at once.

    Updating one of 10 million numbers in pieces takes thousands of operators, and seconds on fake tensors.
    """
    inner = _inner(optimizer)
    if isinstance(inner, AdamW) and not isinstance(inner, Muon):
        return lambda parameter: min(parameter.numel(), PIECES["cpu"])
    return (lambda parameter: parameter.shape) if isinstance(inner, PlainStateOptimizer) else None


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return optimizer.inner if isinstance(optimizer, HostOptimizer) else optimizer


def named(parts: Parts) -> Counter[str]:
    """Bytes by what they are for, in the words of a plan."""
    names: Counter[str] = Counter()
    for (made, kind), n_bytes in parts.items():
        if made == FORWARD and kind != "loss head":
            names[f"activations: {kind}"] += n_bytes
        elif (made, kind) == ("", ""):
            names["batch"] += n_bytes
        else:
            names[kind if made in ("", FORWARD) or kind == "gradients" else "working memory"] += n_bytes
    return names


def _at_depth(depth: int, two: Counter[str], three: Counter[str]) -> Counter[str]:
    """From the memory of models of two and three blocks that of `depth` blocks, which is linear in them."""
    return Counter({part: two[part] + (depth - 2) * (three[part] - two[part]) for part in two | three})


def _alike(model_config: Config) -> bool:
    """Whether all blocks of a model take the same memory."""
    one_by_one = (model_config.rope_indices, model_config.sliding_window_indices)
    return not model_config.first_k_dense_replace and one_by_one == (None, None)


@contextmanager
def _moments_of(run: Run, trace: MemoryTrace) -> Iterator[None]:
    """Tells the trace how far a step is: gradients that arrive say where in the backward it is."""

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


class RandomText:
    """Batches without a text: what is in them does not change the memory that they take."""

    n_windows: int | None = None
    fingerprint: str | None = None
    bytes_per_token: float | None = None
    may_mask = False

    def __init__(self, size: tuple[int, int], vocab_size: int, device: torch.device | None = None) -> None:
        self.size, self.vocab_size, self.device = size, vocab_size, device

    def training(self, start: int, micro_batch_size: int) -> Generator[Batch, None, None]:
        while True:
            inputs_BT, targets_BT = (
                torch.randint(self.vocab_size, self.size, device=self.device) for _ in range(2)
            )
            yield inputs_BT, targets_BT

    def validation(self, micro_batch_size: int) -> Iterator[Batch]:
        return iter(())


class _Load(TorchDispatchMode):
    """Answers when a step asks a fake tensor for its values.

    The integers it asks for are the counts of experts (int64) and the bounds of their rows (int32). Everything
    else are figures to be shown.
    """

    def __init__(self, tokens: int, per_token: int, n_expert: int, fullest: float) -> None:
        """The first expert has `fullest` times the mean, if there are tokens; the others share the rest."""
        super().__init__()
        assignments = tokens * per_token
        first = min(tokens, round(fullest * assignments / max(1, n_expert)))
        rest = [(assignments - first) * e // max(1, n_expert - 1) for e in range(n_expert)]
        self.counts = [first, *(after - before for before, after in pairwise(rest))]
        self.bounds = list(accumulate(self.counts))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].constant is None:
            values = {torch.int32: self.bounds, torch.int64: self.counts}.get(args[0].dtype)
            return 1.0 if values is None else values[args[0].storage_offset()]
        return func(*args, **(kwargs or {}))


class _FakeFabric(Fabric):
    """Fabric on one CPU for fake tensors, which `nn.Module.to` refuses: they are made where and as they stay."""

    def __init__(self, precision: Any) -> None:
        kinds = {"32-true": Precision, "bf16-true": partial(_FakeHalf, precision)}
        plugin = kinds.get(precision, partial(MixedPrecision, precision, "cpu"))()
        super().__init__(accelerator="cpu", devices=1, plugins=[plugin])

    def setup(self, module: nn.Module, *optimizers: Any, **_: Any) -> Any:
        return super().setup(module, *optimizers, move_to_device=False)


class _FakeHalf(HalfPrecision):
    """Parameters are bf16 as soon as they are made; their module's tables have to become it."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        for owner in module.modules():
            for name, buffer in owner.named_buffers(recurse=False):
                setattr(owner, name, self.convert_input(buffer))
        return module
