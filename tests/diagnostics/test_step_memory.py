"""The estimated memory of a step, against what torch's allocator hands out in a real one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small import MODEL

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.diagnostics.allocations import peak_above_start
from litmoe.diagnostics.memory_trace import MemoryTrace, peaks
from litmoe.diagnostics.step_memory import estimate_step
from litmoe.diagnostics.step_trace import kind_of, trace_step
from litmoe.model.flops import num_params
from litmoe.training.run import Run
from litmoe.training.setup import model_and_length, set_up
from litmoe.training.step import gradients, update

WIDE = MODEL | {"n_embd": 128, "intermediate_size": 256, "moe_intermediate_size": 256, "block_size": 128}
ADAMW8 = {"class_path": "AdamW8bit", "init_args": {"lr": 0.001}}


@pytest.fixture
def started(make_config: Callable[..., TrainConfig]) -> Any:
    """Runs after their first step, which makes the optimizer's state; closed in the end."""
    runs: list[Run] = []

    def make(model: dict[str, Any], **settings: Any) -> Run:
        run = set_up(make_config(**{"model_config": model, **settings}))
        _step(run)
        runs.append(run)
        return run

    yield make
    for run in runs:
        run.close()


def _step(run: Run) -> None:
    update(run, gradients(run, run.data()), run.peak_lr)


def _allocated(run: Run, step: Callable[[], None] | None = None) -> int:
    """The most bytes in use during a step, by torch's profiler."""
    held = [*run.gpt.parameters(), *run.gpt.buffers()]
    held += checkpoint.tensors_in(run.optimizer.state_dict())
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in held)}
    return sum(storages.values()) + peak_above_start(step or (lambda: _step(run)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ({}, {}),
        ({"n_layer": 5}, {"train": {"micro_batch_size": 8}}),
        ({}, {"precision": "bf16-true", "optimizer": ADAMW8, "memory": {"recompute": "experts"}}),
        ({"n_layer": 4}, {"memory": {"recompute": "blocks"}, "train": {"max_seq_length": 64}}),
        ({}, {"train": {"micro_batch_size": 8, "max_norm": None}, "memory": {"step_in_backward": True}}),
        (
            {"mlp_class_name": "LLaMAMLP", "n_expert": 0, "n_expert_per_token": 0},
            {"moe": {"balance": "none"}},
        ),
    ],
    ids=lambda case: ",".join(map(str, case)) or "plain",
)
def test_the_estimated_peak_is_within_5_percent_of_the_allocators(
    started: Callable[..., Run], model: dict[str, Any], settings: dict[str, Any]
) -> None:
    run = started(WIDE | model, **settings)
    assert estimate_step(run.config).total == pytest.approx(_allocated(run), rel=0.05)


def test_the_trace_of_a_real_step_agrees_with_the_allocator(started: Callable[..., Run]) -> None:
    """Two tracers that have nothing in common: operators' results, and the allocator's own events."""
    run, trace = started(WIDE), MemoryTrace(kind_of)
    allocated = _allocated(run, lambda: trace_step(run, trace))
    assert max(parts.total() for parts in peaks(trace.log).values()) == pytest.approx(allocated, rel=0.01)


def test_what_the_memory_is_for(make_config: Callable[..., TrainConfig]) -> None:
    """Weights, gradients and moments have the sizes that the number of parameters says."""
    config = make_config(model_config=WIDE | {"n_layer": 6}, compile=True)  # which is not for fake tensors
    parts = estimate_step(config).parts
    n_params = num_params(model_and_length(config)[0])
    assert parts["parameters"] == parts["gradients"] == 4 * n_params
    assert parts["optimizer state"] == pytest.approx(8 * n_params, rel=1e-3)


def test_nothing_is_left_of_a_step_on_fake_tensors(make_config: Callable[..., TrainConfig]) -> None:
    """A run after a plan in the same process trains as it would have."""
    results = []
    for plan_first in (False, True):
        config = make_config(precision="bf16-true", optimizer=ADAMW8)
        if plan_first:
            estimate_step(config)
        run = set_up(config)
        _step(run)
        results.append([parameter.detach().clone() for parameter in run.gpt.parameters()])
        run.close()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_large_model_is_estimated_without_its_memory(make_config: Callable[..., TrainConfig]) -> None:
    """70 billion parameters, on any machine, with nothing but names and sizes."""
    model = MODEL | {"n_layer": 80, "n_embd": 8192, "n_head": 64, "n_query_groups": 8}
    model |= {"intermediate_size": 8192, "moe_intermediate_size": 8192}
    memory = estimate_step(make_config(model_config=model))
    assert memory.total > 1e12
