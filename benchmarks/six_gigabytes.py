"""Whether the MoE-200M model trains in 6 GB: every allocation of a real step of the preset, counted.

    python benchmarks/six_gigabytes.py [--layers N] [--vram 5.5] [--recompute none]

A step of `configs/moe-200m-6gb.yaml` runs at full size on the CPU, with real weights and random tokens: one
micro-batch of 2,048 tokens, with gradients of earlier micro-batches present, and the update. Every storage is
counted from allocation to release (`MemoryTrace`, which `plan_accuracy.py` checks against torch's allocator)
and compared with the plan's estimate; the memory that CUDA itself takes is added. Exits with 1 if the total
exceeds `--vram`.

Products of bf16 matrices are computed in fp32 and rounded: the memory outside the operator is the same, and a
CPU without bf16 instructions needs minutes instead of hours. `--layers 2` is a quick trial.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode

from litmoe.config.files import read_yaml
from litmoe.config.load import load_train_config
from litmoe.diagnostics.memory_trace import MemoryTrace, peaks
from litmoe.diagnostics.step_memory import FRAMEWORK, estimate_step
from litmoe.diagnostics.step_trace import kind_of, make_state, named, trace_step
from litmoe.diagnostics.trial import RandomText
from litmoe.training.schedule import Horizon
from litmoe.training.setup import assemble, model_and_length


class ProductsInFp32(TorchDispatchMode):
    """Computes products of bf16 matrices in fp32, inside the operator."""

    PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.linear)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.overloadpacket not in self.PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **kwargs)
        out = kwargs.pop("out", None)
        wide = func.overloadpacket(*(a.float() if isinstance(a, torch.Tensor) else a for a in args), **kwargs)
        return wide.bfloat16() if out is None else out.copy_(wide)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, help="of the model; all of them unless given")
    parser.add_argument("--vram", type=float, default=5.5, help="gigabytes")
    parser.add_argument("--recompute", default="none")
    args = parser.parse_args()
    config = load_train_config(
        preset="moe-200m-6gb", overrides=["--accelerator=cpu", f"--memory.recompute={args.recompute}"]
    )
    assert isinstance(config.model_config, Path)
    if args.layers:
        config.model_config = read_yaml(config.model_config) | {"n_layer": args.layers}
    model_config, seq_length = model_and_length(config)
    estimated = estimate_step(config)

    config.train.global_batch_size = config.train.micro_batch_size
    size = (config.train.micro_batch_size, seq_length)
    text = RandomText(size, model_config.vocab_size)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    run = assemble(config, fabric, model_config, seq_length, text, Horizon(1, 0, size[0] * size[1]))
    for parameter in run.gpt.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_state(run.optimizer.optimizer)

    trace, started = MemoryTrace(kind_of), time.perf_counter()
    with ProductsInFp32():
        trace_step(run, trace)
    moments = {moment: named(parts) for moment, parts in peaks(trace.log).items()}
    moment = max(moments, key=lambda moment: moments[moment].total())
    traced = moments[moment]

    print(
        f"{sum(p.numel() for p in run.gpt.parameters()):,} parameters, {size[0]} x {size[1]} tokens, ", end=""
    )
    print(f"{time.perf_counter() - started:.0f} s; most memory in {moment} (estimate: {estimated.moment})\n")
    print(f"{'MB':<32}{'traced':>10}{'estimate':>10}")
    for part in dict(traced.most_common()) | estimated.parts:
        print(f"{part:<32}{traced[part] / 1e6:>10.1f}{estimated.parts.get(part, 0) / 1e6:>10.1f}")
    print(f"{'storages':<32}{traced.total() / 1e6:>10.1f}{estimated.total / 1e6:>10.1f}")
    print(f"{'CUDA context and libraries':<32}{FRAMEWORK / 1e6:>10.1f}  (assumed)")
    total = (traced.total() + FRAMEWORK) / 1e9
    print(f"{'in all':<32}{total * 1e3:>10.1f}  of {args.vram * 1e3:.0f}")
    print("\npeak of each phase of the step, MB")
    for name, parts in moments.items():
        print(f"  {name:<40}{parts.total() / 1e6:>10.1f}")
    return 0 if total <= args.vram else 1


if __name__ == "__main__":
    sys.exit(main())
