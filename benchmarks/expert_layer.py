"""The expert layer alone, forward and backward, against LitGPT's ``LLaMAMoE`` and the bare matrix products.

    python benchmarks/expert_layer.py [--repeats 1] [--iterations 5] [--bf16]

2048 tokens, top-2 of 8 experts; width 768 with experts of 2048, and width 256 with experts of 512. Each variant
has its own process with one thread, and new tokens, hence new loads, in every iteration. "bare products" are
the layer's matrix products with even loads and nothing else: a bound that no layer can beat. The activations
kept for the backward pass are compared too. Both layers have the same weights and must give the same output and
gradient. bf16 is skipped where the CPU has no instructions for it (litmoe refuses it there), unless ``--bf16``
asks for it.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from litgpt import Config
from litgpt.model import LLaMAMoE
from measuring import Row, clock, cpu_has_bf16, interleaved, report, table, variant
from torch import Tensor

from litmoe.model.moe.layer import MoE

TOKENS, EXPERTS, TOP = 2048, 8, 2
WIDTHS = {768: 2048, 256: 512}


def rows(repeats: int = 1, iterations: int = 5, bf16: bool = False) -> list[Row]:
    """Milliseconds per iteration against both peers, and the activations kept."""
    found = []
    for width in WIDTHS:
        for dtype in ("fp32", "bf16") if bf16 or cpu_has_bf16() else ("fp32",):
            args = (str(width), dtype, "--iterations", str(iterations))
            sides = {
                side: partial(variant, __file__, side, *args, threads=1)
                for side in ("ours", "litgpt", "products")
            }
            results = interleaved(sides, repeats)
            ours, theirs = results["ours"], results["litgpt"]
            for name in ("output", "gradient"):
                close = 1e-4 if dtype == "fp32" else 3e-2
                assert abs(ours[name] - theirs[name]) <= close * abs(theirs[name]), f"the {name}s differ"
            figure = f"expert layer, width {width}, {dtype}"
            found += [
                Row(figure, ours["ms"], theirs["ms"], unit="ms"),
                Row(figure, ours["ms"], results["products"]["ms"], "bare products", "ms"),
                Row(f"{figure}, activations kept", ours["kept"], theirs["kept"], unit="MB"),
            ]
    return found


def measure(side: str, width: int, dtype_name: str, iterations: int) -> dict[str, float]:
    """Median milliseconds of an iteration after the first; and norms that must agree between the layers."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype_name]
    torch.manual_seed(0)
    if side == "products":
        run: Callable[[Tensor], dict[str, float]] = _products(width, dtype)
    else:
        config = Config(
            n_embd=width,
            n_head=8,
            mlp_class_name="LLaMAMoE",
            n_expert=EXPERTS,
            n_expert_per_token=TOP,
            intermediate_size=WIDTHS[width],
            moe_intermediate_size=WIDTHS[width],
            bias=False,
        )
        ours = MoE(config).to(dtype)
        run = partial(_layer, ours)
        if side == "litgpt":
            theirs = LLaMAMoE(config).to(dtype)
            theirs.load_state_dict(ours.state_dict())
            run = partial(_layer, theirs)
    generator = torch.Generator().manual_seed(1)
    seconds = []
    proof: dict[str, float] = {}
    for number in range(iterations + 1):
        x_BTD = torch.randn(1, TOKENS, width, generator=generator).to(dtype)
        start = clock()
        result = run(x_BTD)
        seconds.append(clock() - start)
        proof = result if number == 0 else proof
    kept = 0.0 if side == "products" else _kept(run.args[0], x_BTD)  # type: ignore[attr-defined]
    return {"ms": 1e3 * statistics.median(seconds[1:]), "kept": kept, **proof}


def _layer(layer: torch.nn.Module, x_BTD: Tensor) -> dict[str, float]:
    layer.zero_grad()
    x_BTD = x_BTD.requires_grad_()
    y_BTD = layer(x_BTD)
    y_BTD = y_BTD[0] if isinstance(y_BTD, tuple) else y_BTD
    y_BTD.backward(torch.ones_like(y_BTD))
    assert x_BTD.grad is not None
    return {"output": float(y_BTD.detach().float().norm()), "gradient": float(x_BTD.grad.float().norm())}


def _products(width: int, dtype: torch.dtype) -> Callable[[Tensor], dict[str, float]]:
    inner, rows_each = WIDTHS[width], TOKENS * TOP // EXPERTS
    w13 = [torch.randn(2 * inner, width).to(dtype) for _ in range(EXPERTS)]
    w2 = [torch.randn(width, inner).to(dtype) for _ in range(EXPERTS)]
    a_NI = torch.randn(rows_each, inner).to(dtype)
    dh13_NI, dy_ND = torch.randn(rows_each, 2 * inner).to(dtype), torch.randn(rows_each, width).to(dtype)

    def run(x_BTD: Tensor) -> dict[str, float]:
        for e in range(EXPERTS):
            x_ND = x_BTD[0].repeat(TOP, 1)[e * rows_each : (e + 1) * rows_each] if e == 0 else dy_ND
            for a, b in ((x_ND, w13[e].T), (a_NI, w2[e].T), (dy_ND, w2[e]), (dh13_NI, w13[e])):
                torch.mm(a, b)
            torch.mm(dy_ND.T, a_NI)
            torch.mm(dh13_NI.T, x_ND)
        return {}

    return run


def _kept(layer: torch.nn.Module, x_BTD: Tensor) -> float:
    """Megabytes that the graph of one forward pass keeps, without parameters and input."""
    held: dict[int, int] = {}
    known = {p.untyped_storage().data_ptr() for p in [*layer.parameters(), x_BTD]}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = layer(x_BTD.detach().requires_grad_())
    assert output is not None  # keeps the graph and its tensors alive until here
    return sum(held.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", nargs="*", help="side, width and type, to measure in this process")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    if args.variant:
        side, width, dtype = args.variant
        result: dict[str, Any] = measure(side, int(width), dtype, args.iterations)
        report(result)
    else:
        print(table(rows(args.repeats, args.iterations, args.bf16)))


if __name__ == "__main__":
    main()
