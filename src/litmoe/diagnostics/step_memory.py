"""An estimate of the memory of a training step, traced on fake tensors, which take none.

The step is the run's own (`litmoe.training.step`). So what it keeps, and when it lets go, is read off the code
that trains, whatever the optimizer, the precision or the recomputation. Blocks are alike, and at every moment of a
step memory is linear in their number: models of two and three blocks are traced, and the rest is extrapolated.

It is a CPU's step. On CUDA the same tensors live and die, but attention kernels need other working memory inside;
experts multiplied as one group (bf16, compute capability 9 and 10) have their working memory for all experts at
once; torch's optimizers without a fused step may update all parameters at once, on copies of them; compiled blocks
may keep other activations; and the allocator rounds to 512 bytes and leaves gaps. `FRAMEWORK` allows for the small
differences.
"""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from litgpt import Config
from torch._subclasses.fake_tensor import FakeTensorMode

from litmoe.config import TrainConfig
from litmoe.diagnostics.fake_run import ExpertLoad, FakeFabric
from litmoe.diagnostics.memory_trace import MemoryTrace, peaks
from litmoe.diagnostics.step_trace import HOST, OPTIMIZER, alike_to, kind_of, make_state, named, trace_step
from litmoe.diagnostics.trial import RandomText
from litmoe.optim.quantize import make_tables
from litmoe.training.schedule import Horizon
from litmoe.training.setup import assemble, model_and_length

FULLEST = 3.0
"""Tokens of the fullest expert over the mean that a plan allows for: 2.6 and 3.6 were seen at the end of runs with
and without the Switch loss (docs/concepts/balance.md), 3.3 in the first steps of a small model."""

FRAMEWORK = 500_000_000
"""Bytes that CUDA's context and torch's libraries take on a GPU in addition, including cuBLAS's workspace and what
the allocator rounds up: assumed, 300 to 500 MB are usual."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes on the device when memory use peaks."""

    parts: dict[str, int]
    """By what they are for."""
    moment: str
    """The phase of the step in which that is."""
    host: int = 0
    """Bytes of the optimizer that are in host memory instead."""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


def estimate_step(config: TrainConfig, fullest: float = FULLEST) -> StepMemory:
    """Estimate the memory of a step in the middle of a run, without allocating any.

    Args:
        config: of the run, with its precision settled.
        fullest: tokens of the fullest expert over the mean.

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
        # The backward of a middle block, of which two blocks have none, is never the peak.
        moments = {moment: _at_depth(depth, parts, three[moment]) for moment, parts in two.items()}
    moment, parts = max(moments.items(), key=lambda item: item[1].total() - item[1][HOST])
    host = parts.pop(HOST, 0)
    return StepMemory(dict(parts.most_common()), moment, host)


def _moments(
    config: TrainConfig, model_config: Config, seq_length: int, fullest: float
) -> dict[str, Counter[str]]:
    """Bytes by owner at the peak of each phase of a step, traced on fake tensors.

    Of a global batch of several micro-batches one is traced, with the gradients of earlier ones already there.
    """
    # a run of one micro-batch per step
    several = config.train.global_batch_size > config.train.micro_batch_size
    train = replace(config.train, global_batch_size=config.train.micro_batch_size)
    config = replace(config, train=train, compile=False)  # a compiler needs values
    size = (train.micro_batch_size, seq_length)
    load = ExpertLoad(size[0] * size[1], model_config.n_expert_per_token, model_config.n_expert, fullest)
    trace = MemoryTrace(kind_of)
    make_tables(torch.device("cpu"))  # which stay for later, and must not be fake

    # its step
    with FakeTensorMode(allow_non_fake_inputs=True), load:
        text = RandomText(size, model_config.vocab_size)
        one_step = Horizon(steps=1, warmup_steps=0, tokens_per_step=size[0] * size[1])
        run = assemble(config, FakeFabric(config.precision), model_config, seq_length, text, one_step)
        for parameter in run.gpt.parameters():
            parameter.grad = torch.zeros_like(parameter)
        make_state(run.optimizer.optimizer)
        if not several:
            run.optimizer.zero_grad()
        trace_step(run, trace, alike_to(run.optimizer.optimizer))
    moments = peaks(trace.log)
    if config.memory.offload_optimizer:
        moments.pop(OPTIMIZER, None)  # in host memory, of which there is more
    return {moment: named(parts) for moment, parts in moments.items()}


def _at_depth(depth: int, two: Counter[str], three: Counter[str]) -> Counter[str]:
    """The memory of `depth` blocks, extrapolated from that of two and of three."""
    return Counter({part: two[part] + (depth - 2) * (three[part] - two[part]) for part in two | three})


def _alike(model_config: Config) -> bool:
    """Whether all blocks of a model take the same memory."""
    one_by_one = (model_config.rope_indices, model_config.sliding_window_indices)
    return not model_config.first_k_dense_replace and one_by_one == (None, None)
