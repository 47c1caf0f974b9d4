"""A whole training step against ``litgpt.GPT`` with LitGPT's loss: forward, backward, clipping, AdamW.

    python benchmarks/training_step.py [--repeats 1] [--iterations 8] [--bf16]

The model, window and micro-batch of the tiny preset, with random weights, and new random tokens in every step, so
that the experts' loads change as in training. Both have the same weights, precision, optimizer
(``torch.optim.AdamW``, fused) and clipping; LitGPT uses its ``chunked_cross_entropy``. Each variant has its own
process with one thread. The losses of the first step must be equal. litmoe with ``--compile`` is a variant of its
own; compilation is not counted.

Where the CPU has no bf16 instructions, litmoe trains in fp32 when asked for bf16-mixed (LitGPT's default), while
LitGPT does as asked: a row of its own there. ``--bf16`` makes both multiply in bf16 there too.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import litgpt
import torch
from litgpt.utils import chunked_cross_entropy
from measuring import Row, clock, cpu_has_bf16, interleaved, report, table, variant
from torch import Tensor

from litmoe.config.load import load_train_config
from litmoe.model.gpt import GPT
from litmoe.model.objective import Objective

BATCH = 4


def rows(repeats: int = 1, iterations: int = 8, bf16: bool = False) -> list[Row]:
    """Tokens per second of litmoe, plain and compiled, and of LitGPT."""
    found = []
    for dtype in ("fp32", "bf16") if bf16 or cpu_has_bf16() else ("fp32",):
        args = (dtype, "--iterations", str(iterations))
        sides = {
            side: partial(variant, __file__, side, *args, threads=1)
            for side in ("ours", "compiled", "litgpt")
        }
        results = interleaved(sides, repeats)
        close = 1e-4 if dtype == "fp32" else 1e-2
        assert abs(results["ours"]["loss"] - results["litgpt"]["loss"]) < close, "the losses differ"
        assert abs(results["ours"]["loss"] - results["compiled"]["loss"]) < close, "the losses differ"
        for side, name in (("ours", ""), ("compiled", ", --compile")):
            figure = f"training step, tiny preset, {dtype}{name}"
            found.append(_speeds(figure, results[side]["speed"], results["litgpt"]["speed"]))
        if dtype == "fp32" and not cpu_has_bf16():
            as_asked = variant(__file__, "litgpt", "bf16", "--iterations", "2", threads=1)
            assert abs(results["ours"]["loss"] - as_asked["loss"]) < 1e-2, "the losses differ"
            figure = "training step, tiny preset, asked for bf16-mixed"
            found.append(_speeds(figure, results["ours"]["speed"], as_asked["speed"]))
    return found


def _speeds(figure: str, ours: float, theirs: float) -> Row:
    return Row(figure, ours, theirs, unit="tokens/s", more_is_better=True)


def measure(side: str, dtype_name: str, iterations: int) -> dict[str, float]:
    """Median tokens per second over the steps, and the cross-entropy of the first step."""
    fields = load_train_config(preset="tiny").model_config
    assert isinstance(fields, dict)
    config = litgpt.Config(**fields)
    torch.manual_seed(0)
    model = GPT(config)
    weights = model.state_dict()
    if side == "litgpt":
        theirs = litgpt.GPT(config)
        theirs.load_state_dict(weights)
        module: torch.nn.Module = theirs
        loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = partial(_litgpt_loss, theirs)
    else:
        if side == "compiled":
            model.compile_blocks()
        module, loss_of = model, _ours(model)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(1)
    seconds, first = [], 0.0
    for number in range(iterations + 3):
        idx_BT = torch.randint(config.vocab_size, (BATCH, config.block_size + 1), generator=generator)
        start = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype_name == "bf16"):
            total, cross_entropy = loss_of(idx_BT[:, :-1], idx_BT[:, 1:])
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(clock() - start)
        first = first if number else float(cross_entropy.detach())
    return {"speed": BATCH * config.block_size / statistics.median(seconds[3:]), "loss": first}


def _ours(model: GPT) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    objective = Objective(model)

    def loss_of(idx_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        losses = objective(idx_BT, targets_BT)
        return losses.total, losses.cross_entropy

    return loss_of


def _litgpt_loss(model: litgpt.GPT, idx_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    loss = chunked_cross_entropy(model(idx_BT), targets_BT)
    return loss, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", nargs="*", help="side and type, to measure in this process")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--bf16", action="store_true", help="also where the CPU has no instructions for it")
    args = parser.parse_args()
    if args.variant:
        side, dtype = args.variant
        report(measure(side, dtype, args.iterations))
    else:
        print(table(rows(args.repeats, args.iterations, args.bf16)))


if __name__ == "__main__":
    main()
