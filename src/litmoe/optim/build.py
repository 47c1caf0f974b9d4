"""Optimizers by name or import path, with weight decay on matrices only."""

import inspect
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from litgpt.model import CausalSelfAttention
from torch import Tensor, nn

from litmoe.config import ClassSpec, MemoryArgs
from litmoe.config.instantiate import find_class, make
from litmoe.errors import ConfigError, MissingExtraError
from litmoe.messages import one_line
from litmoe.model.moe.experts import Experts
from litmoe.model.moe.layer import MoE
from litmoe.optim import AdamW, Muon
from litmoe.optim.base import PlainStateOptimizer
from litmoe.optim.offload import HostOptimizer

OWN = ("AdamW8bit", "AdamW4bit", "Muon")
"""Names of litmoe's optimizers, which are not looked up in ``torch.optim``."""
TORCHAO = "torchao"
TORCH_ADAMW = ("AdamW", "torch.optim.AdamW")


def make_optimizer(
    spec: ClassSpec, model: nn.Module, precision: str, memory: MemoryArgs | None = None, seed: int = 0
) -> torch.optim.Optimizer:
    """The optimizer of a run over all parameters of ``model``, which are already on their device.

    Matrices (including stacked experts and embeddings) take the configured weight decay; vectors (norms, biases)
    take none: decay would pull a norm's scale to zero. Muon gets the matrices between the embeddings, except the
    router's. The fused implementation is used where the class has one: 22 ms instead of 55 ms for AdamW on 30 M
    parameters on two CPU cores.

    Args:
        spec: name and arguments of the optimizer.
        model: whose parameters it updates.
        precision: of the run.
        memory: how to save memory.
        seed: of stochastic rounding.

    Raises:
        ConfigError: an unknown optimizer, arguments that it does not take, or a missing compiler.
        MissingExtraError: a torchao optimizer without torchao.
    """
    # the class, and whether it rounds stochastically
    memory = memory or MemoryArgs()
    in_bf16 = precision == "bf16-true" and not memory.offload_optimizer
    rounds = in_bf16 and memory.stochastic_rounding
    cls = _find(spec, rounds)

    # its arguments
    init_args: dict[str, Any] = dict(spec.init_args)
    takes = inspect.signature(cls).parameters
    if "lr" in takes and not isinstance(init_args.get("lr", 0.0), int | float):
        raise ConfigError(f"optimizer.init_args.lr: expected a number, got {init_args['lr']!r}")
    if issubclass(cls, Muon) and "matrices" in init_args:
        raise ConfigError("optimizer.init_args.matrices has no effect here: the model says what is a matrix")
    # In 16-mixed a fused step would unscale the gradients itself, after they should have been clipped.
    if "fused" in takes and "fused" not in init_args and precision != "16-mixed":
        init_args["fused"] = True
    if "stochastic_rounding" in takes:
        init_args = {"stochastic_rounding": rounds, "seed": seed} | init_args
    if "bf16_stochastic_round" in takes:
        init_args = {"bf16_stochastic_round": rounds} | init_args
    if cls.__module__.partition(".")[0] == TORCHAO:
        _require_compiler("cpu" if memory.offload_optimizer else next(model.parameters()).device.type)

    # its parameters, in groups by how they are updated
    groups = _muon_groups(model) if issubclass(cls, Muon) else [{"params": list(_trained(model))}]
    groups = [part for group in groups for part in _by_decay(group, "weight_decay" in takes)]

    def made(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = make(cls, groups, section="optimizer", **init_args)
        return optimizer

    if not issubclass(cls, PlainStateOptimizer) and cls.__module__.partition(".")[0] != TORCHAO:
        _try_step(made, spec, next(model.parameters()), in_host=memory.offload_optimizer)
    return HostOptimizer(groups, made) if memory.offload_optimizer else made(groups)


def peak_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The configured learning rate, which the schedule scales."""
    return float(optimizer.defaults["lr"])


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all parameters, from the next update on."""
    for group in optimizer.param_groups:
        # torchao's is a tensor: for a new number its step would be compiled again
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def describe(optimizer: torch.optim.Optimizer, precision: str) -> str:
    """The optimizer by name, and how it rounds bf16 weights."""
    inner = optimizer.inner if isinstance(optimizer, HostOptimizer) else optimizer
    name = f"{type(inner).__module__.partition('.')[0]}'s {type(inner).__name__}"
    if inner is not optimizer:
        return f"{name}, with its state and fp32 weights in host memory"
    if precision != "bf16-true":
        return name
    if rounds_stochastically(optimizer):
        return f"{name}; bf16 weights are rounded stochastically"
    return (
        f"{name}; bf16 weights are rounded to the nearest, which loses updates below 1/512 of a weight (AdamW, "
        "AdamW8bit, AdamW4bit and Muon can round stochastically)"
    )


def rounds_stochastically(optimizer: torch.optim.Optimizer) -> bool:
    """Whether this optimizer rounds bf16 weights stochastically."""
    own = any(group.get("stochastic_rounding") for group in optimizer.param_groups)
    return own or getattr(optimizer, "bf16_stochastic_round", False)


def _find(spec: ClassSpec, rounds: bool) -> type:
    """The optimizer's class. AdamW is torch's, or litmoe's to round stochastically, which torch's cannot."""
    if spec.class_path in OWN or (rounds and spec.class_path in TORCH_ADAMW):
        own = replace(spec, class_path=f"litmoe.optim.{spec.class_path.rpartition('.')[2]}")
        if spec.class_path in TORCH_ADAMW:
            for name in spec.init_args.keys() - inspect.signature(AdamW).parameters.keys():
                if name in inspect.signature(torch.optim.AdamW).parameters:
                    raise ConfigError(
                        f"optimizer.init_args.{name}: the AdamW that rounds stochastically takes no such "
                        "argument: remove it, or set memory.stochastic_rounding: false"
                    )
        return find_class(own, "optimizer", "torch.optim", torch.optim.Optimizer)
    if spec.class_path.partition(".")[0] == TORCHAO and find_spec(TORCHAO) is None:
        raise MissingExtraError(
            f"optimizer.class_path {spec.class_path}: torchao is not installed: pip install 'litmoe[lowbit]', or "
            "use AdamW8bit or AdamW4bit, which need no extra"
        )
    return find_class(spec, "optimizer", "torch.optim", torch.optim.Optimizer)


def _try_step(
    make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    spec: ClassSpec,
    like: Tensor,
    in_host: bool,
) -> None:
    """Refuse an optimizer that cannot do a plain step, by trying it on four numbers.

    Raises:
        ConfigError: it wants a closure, sparse gradients, or another device.
    """
    empty = torch.zeros(2, 2) if in_host else torch.zeros(2, 2, device=like.device, dtype=like.dtype)
    parameter = nn.Parameter(empty)
    parameter.grad = torch.ones_like(parameter)
    optimizer = make([{"params": [parameter]}])
    if inspect.signature(type(optimizer).step).parameters["closure"].default is inspect.Parameter.empty:
        raise ConfigError(
            f"optimizer {spec.class_path} evaluates the loss several times per step, which training does not do: "
            "use another, such as AdamW"
        )
    try:
        optimizer.step()
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"optimizer {spec.class_path} cannot do a step here: {one_line(error)}") from error


def _require_compiler(device: str) -> None:
    """Refuse torchao, which compiles its step at the first call, where nothing can compile it.

    Raises:
        ConfigError: no compiler for this device.
    """
    if device == "cuda":
        there, what = find_spec("triton") is not None, "Triton"
    else:
        compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
        there, what = any(shutil.which(name) for name in compilers if name), "a C++ compiler"
    if not there:
        raise ConfigError(
            f"torchao compiles its optimizers for {device} at their first step, which needs {what}, and there is "
            "none here: install it, or use AdamW8bit or AdamW4bit, whose moments are the same"
        )


def _trained(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _by_decay(group: dict[str, Any], takes_decay: bool) -> list[dict[str, Any]]:
    """The group split into its matrices, and its vectors without weight decay."""
    matrices, vectors = ({**group, "params": []} for _ in range(2))
    for parameter in group["params"]:
        (matrices if parameter.ndim >= 2 else vectors)["params"].append(parameter)
    if takes_decay:
        vectors["weight_decay"] = 0.0
    return [part for part in (matrices, vectors) if part["params"]]


def _muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Groups of parameters by the matrices that they divide into; AdamW's group (None) comes last."""
    matrices = _matrices(model)
    by_rows: dict[tuple[int, ...] | None, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_rows[matrices.get(name)].append(parameter)
    order = sorted(by_rows, key=lambda rows: (rows is None, rows or ()))
    return [{"params": by_rows[rows], "matrices": rows} for rows in order]


def _matrices(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The parameters that Muon updates, by name, with the rows of each of their matrices; (): a single one."""
    found: dict[str, tuple[int, ...]] = {}
    routers = {f"{name}.gate" for name, module in model.named_modules() if isinstance(module, MoE)}
    for name, module in model.named_modules():
        if ".h." not in f".{name}.":
            continue
        if isinstance(module, Experts):
            width = module.w2_EDI.size(2)
            found[f"{name}.w13_EID"], found[f"{name}.w2_EDI"] = (width, width), ()
        elif isinstance(module, nn.Linear) and name not in routers:
            found.setdefault(f"{name}.weight", ())
        elif isinstance(module, CausalSelfAttention):
            config = module.config
            kv = config.n_query_groups * config.head_size
            found[f"{name}.qkv.weight"] = (config.n_head * config.head_size, kv, kv)
    return found
