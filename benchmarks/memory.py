"""What recomputing and the step inside backward save and cost: peak memory and time of a step, on the CPU.

    python benchmarks/memory.py [--repeats 3]        (Linux and macOS: it reads the process's peak memory)

A model of 39 M parameters (6 layers, width 256, 8 experts of 1,024, top-2, fp32) makes steps of 1,024 tokens
with SGD, each variant in its own process; all losses must be equal to the bit. The peak is that of the process
above its size before the first step (156 MB of weights). A second table shows what autograd keeps for one layer
of the model in model_config.yaml and 2,048 tokens, extrapolated from a forward pass of 256.
"""

import argparse
import resource
import statistics
import sys
import time
from functools import partial
from typing import Any, Literal

import torch
from litgpt import Config
from measuring import interleaved, report, variant

from litmoe.config.files import read_yaml
from litmoe.config.load import default_file
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.model.objective import Objective
from litmoe.optim.in_backward import StepInBackward

Recompute = Literal["none", "experts", "blocks"]
VARIANTS: dict[str, tuple[Recompute, bool]] = {
    "as it is": ("none", False),
    "recompute: experts": ("experts", False),
    "recompute: blocks": ("blocks", False),
    "step_in_backward": ("none", True),
    "recompute: blocks and step_in_backward": ("blocks", True),
}
STEPS = 3


def peak_bytes() -> int:
    """Peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(name: str) -> dict[str, Any]:
    """Peak bytes above the start, median seconds of a step, and the last loss."""
    recompute, in_backward = VARIANTS[name]
    config = Config(
        block_size=256,
        vocab_size=1024,
        padded_vocab_size=1024,
        n_layer=6,
        n_embd=256,
        n_head=8,
        n_query_groups=4,
        bias=False,
        parallel_residual=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMoE",
        intermediate_size=1024,
        moe_intermediate_size=1024,
        n_expert=8,
        n_expert_per_token=2,
        rotary_percentage=1.0,
    )
    model = GPT(config)
    initialize(model, seed=0)
    model.set_recompute(recompute)
    objective = Objective(model)
    # SGD: no moments, which would be the same for all variants
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if in_backward:
        StepInBackward(optimizer)
    tokens = torch.randint(0, 1024, (4, 257), generator=torch.Generator().manual_seed(0))
    before, seconds = peak_bytes(), []
    for _ in range(STEPS):
        started = time.perf_counter()
        losses = objective(tokens[:, :-1], tokens[:, 1:])
        losses.total.backward()
        if not in_backward:
            optimizer.step()
            optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        loss = losses.total.item()
        del losses
    return {"peak": peak_bytes() - before, "seconds": statistics.median(seconds), "loss": loss.hex()}


def kept_of_a_layer(recompute: Recompute, dtype: torch.dtype) -> int:
    """Bytes that one more layer of MoE-200M keeps for the backward, for 2,048 tokens."""
    tokens, kept = 256, []
    for n_layer in (1, 2):
        fields = read_yaml(default_file("model_config.yaml")) | {"n_layer": n_layer, "padded_vocab_size": 64}
        model = GPT(Config(**fields | {"vocab_size": 64})).to(dtype)
        model.set_recompute(recompute)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        saved: dict[int, int] = {}

        def note(
            tensor: torch.Tensor, weights: set[int] = weights, saved: dict[int, int] = saved
        ) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            # equal tokens all go to the same two experts: no padding rows, which only bf16 on a CPU has
            hidden_BTD, _ = model.hidden(torch.zeros(1, tokens, dtype=torch.int64))
        del hidden_BTD
        kept.append(sum(saved.values()))
    return (kept[1] - kept[0]) * 2048 // tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variant", nargs="?", choices=VARIANTS, help="measured in this process")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.variant:
        report(measure(args.variant))
        return
    sides = {name: partial(variant, __file__, name, threads=1) for name in VARIANTS}
    found = interleaved(sides, args.repeats)
    assert len({row["loss"] for row in found.values()}) == 1, "the losses differ"
    whole = found["as it is"]
    print("| | peak of a step | saved | time of a step |")
    print("|---|---|---|---|")
    for name, row in found.items():
        saved = (whole["peak"] - row["peak"]) / 1e6
        print(
            f"| {name} | {row['peak'] / 1e6:.0f} MB | {saved:.0f} MB | {row['seconds'] / whole['seconds']:.2f} |"
        )
    print("\n| recompute | a layer keeps, fp32 | bf16-true |")
    print("|---|---|---|")
    ways: tuple[Recompute, ...] = ("none", "experts", "blocks")
    for recompute in ways:
        sizes = [kept_of_a_layer(recompute, dtype) / 1e6 for dtype in (torch.float32, torch.bfloat16)]
        print(f"| {recompute} | " + " | ".join(f"{size:.1f} MB" for size in sizes) + " |")


if __name__ == "__main__":
    main()
