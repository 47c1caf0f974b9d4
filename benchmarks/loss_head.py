"""The loss head with a large vocabulary: 2048 tokens, vocabulary 50,257, width 768; forward and backward.

    python benchmarks/loss_head.py [--repeats 1] [--iterations 3] [--bf16]

``litmoe.model.loss.linear_cross_entropy`` against plain logits with ``F.cross_entropy``, against torch's
``F.linear_cross_entropy`` where this torch has one, and against the three bare matrix products. Each variant
has its own process with one thread. Memory is the peak of the process above its size with inputs, gradients and
one small call behind it (Linux and macOS). Losses and gradients must be equal. bf16 is skipped where the CPU
has no instructions for it.
"""

import argparse
import statistics
import sys
from functools import partial

import torch
import torch.nn.functional as F
from measuring import Row, clock, cpu_has_bf16, interleaved, report, table, variant
from torch import Tensor

from litmoe.model.loss import linear_cross_entropy

TOKENS, VOCABULARY, WIDTH = 2048, 50257, 768


def rows(repeats: int = 1, iterations: int = 3, bf16: bool = False) -> list[Row]:
    """Milliseconds against each peer, and the memory."""
    found = []
    peers = {"plain": "plain logits", "products": "bare products"}
    if hasattr(F, "linear_cross_entropy"):
        peers["torch"] = "F.linear_cross_entropy"
    for dtype in ("fp32", "bf16") if bf16 or cpu_has_bf16() else ("fp32",):
        sides = {
            side: partial(variant, __file__, side, dtype, "--iterations", str(iterations), threads=1)
            for side in ("ours", *peers)
        }
        results = interleaved(sides, repeats)
        ours = results["ours"]
        close = 1e-4 if dtype == "fp32" else 3e-2
        for side in set(peers) - {"products"}:
            for name in ("loss", "gradient"):
                assert abs(results[side][name] - ours[name]) <= close * abs(ours[name]), (
                    f"{side}: the {name} differs"
                )
        for side, name in peers.items():
            found.append(Row(f"loss head, {dtype}", ours["ms"], results[side]["ms"], name, "ms"))
            if side != "products" and ours["extra"]:
                found.append(
                    Row(f"loss head, {dtype}, memory", ours["extra"], results[side]["extra"], name, "MiB")
                )
    return found


def measure(side: str, dtype_name: str, iterations: int) -> dict[str, float]:
    """Median milliseconds after the first call, peak MiB, and figures that must agree between the variants."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype_name]
    torch.manual_seed(0)
    x_TD = torch.randn(TOKENS, WIDTH).to(dtype).requires_grad_()
    w_VD = (torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5).to(dtype).requires_grad_()
    targets_T = torch.randint(VOCABULARY, (TOKENS,))
    run = {"ours": _ours, "plain": _plain, "torch": _torch, "products": _products}[side]
    run(x_TD[:8].detach().requires_grad_(), w_VD[:64].detach().requires_grad_(), targets_T[:8] % 64)
    x_TD.grad, w_VD.grad = torch.zeros_like(x_TD), torch.zeros_like(w_VD)
    x_TD.grad.fill_(0.0), w_VD.grad.fill_(0.0)  # touched, so that these pages count as present already
    seconds, proof, extra = [], {}, 0.0
    for number in range(iterations + 1):
        before = _peak()
        start = clock()
        loss = run(x_TD, w_VD, targets_T)
        seconds.append(clock() - start)
        if number == 0:
            extra = _peak() - before
            proof = {"loss": loss, "gradient": float(w_VD.grad.float().norm())}
    return {"ms": 1e3 * statistics.median(seconds[1:]), "extra": extra, **proof}


def _ours(x_TD: Tensor, w_VD: Tensor, targets_T: Tensor) -> float:
    loss, _ = linear_cross_entropy(x_TD, w_VD, targets_T)
    loss.backward()
    return float(loss.detach())


def _plain(x_TD: Tensor, w_VD: Tensor, targets_T: Tensor) -> float:
    loss = F.cross_entropy(F.linear(x_TD, w_VD).float(), targets_T)
    loss.backward()
    return float(loss.detach())


def _torch(x_TD: Tensor, w_VD: Tensor, targets_T: Tensor) -> float:
    loss = F.linear_cross_entropy(x_TD, w_VD, targets_T)
    loss.backward()
    return float(loss.detach())


def _products(x_TD: Tensor, w_VD: Tensor, targets_T: Tensor) -> float:
    """In chunks like litmoe's, so that both multiply matrices of the same shapes."""
    dw_VD = torch.zeros_like(w_VD)
    with torch.no_grad():
        for x_CD in x_TD.split(256):
            d_CV = x_CD @ w_VD.T
            d_CV @ w_VD
            dw_VD.addmm_(d_CV.T, x_CD)
    return 0.0


def _peak() -> float:
    """Peak memory of this process so far, MiB; 0 where the system does not report it."""
    if sys.platform == "win32":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", nargs="*", help="side and type, to measure in this process")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    if args.variant:
        side, dtype = args.variant
        report(measure(side, dtype, args.iterations))
    else:
        print(table(rows(args.repeats, args.iterations, args.bf16)))


if __name__ == "__main__":
    main()
