"""Optimizers on one small model and the built-in stories: bytes, time of an update, and losses.

    python benchmarks/optimizers.py [--repeats 3] [--steps 60] [--lr 0.003]

A model of 3.0 M parameters is trained for 60 steps of 1,024 tokens, each optimizer in its own process, from the
same weights and on the same text. First, litmoe's AdamW in fp32 must give the weights of torch's, to the bit.
Bytes are those of the state's tensors; the training loss is the mean of the last ten steps. Update times are
medians of interleaved updates in one process, on the same parameters and gradients, in multiples of torch's
fused AdamW in fp32.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from litgpt import Config
from measuring import SMALL_MODEL, interleaved, report, variant

from litmoe.checkpoint import tensors_in
from litmoe.config import ClassSpec, MemoryArgs, PrepareConfig, TrainConfig
from litmoe.config.load import parse
from litmoe.data.prepare import prepare
from litmoe.model.gpt import GPT
from litmoe.model.init import initialize
from litmoe.optim import AdamW
from litmoe.optim.build import make_optimizer
from litmoe.training.loop import validate
from litmoe.training.run import Run
from litmoe.training.schedule import learning_rate
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update

MODEL = SMALL_MODEL | {
    "name": "MoE-3M",
    "block_size": 128,
    "vocab_size": 1024,
    "padded_vocab_size": 1024,
    "n_layer": 3,
}
NEAREST = "nearest"
VARIANTS = [
    ("32-true", "torch.optim.AdamW", ""),
    ("32-true", "AdamW8bit", ""),
    ("32-true", "AdamW4bit", ""),
    ("32-true", "Muon", ""),
    ("bf16-true", "AdamW", ""),
    ("bf16-true", "AdamW", NEAREST),
    ("bf16-true", "AdamW8bit", ""),
    ("bf16-true", "AdamW8bit", NEAREST),
    ("bf16-true", "AdamW4bit", ""),
    ("bf16-true", "Muon", ""),
]


def prepare_data(data: Path) -> None:
    """2,000 of the built-in stories, and a tokenizer of 1,024 tokens."""
    prepare(
        PrepareConfig(
            source=["sample"],
            data_dir=data,
            tokenizer="train",
            vocab_size=1024,
            tokenizer_dir=data / "tokenizer",
            max_documents=2000,
            progress=False,
        ),
        say=lambda _: None,
    )


def make_run(data: Path, precision: str, optimizer: str, rounding: str, steps: int, lr: float) -> Run:
    """A run of one variant, ready for its first step."""
    settings = {
        "model_config": MODEL,
        "out_dir": str(data / "out"),
        "precision": precision,
        "accelerator": "cpu",
        "tokenizer_dir": str(data / "tokenizer"),
        "data": {
            "class_path": "litmoe.data.TextFiles",
            "init_args": {"train_data_path": str(data / "train"), "val_data_path": str(data / "val")},
        },
        "train": {
            "global_batch_size": 8,
            "micro_batch_size": 8,
            "max_steps": steps,
            "lr_warmup_steps": 5,
            "min_lr": 0.0003,
        },
        "eval": {"max_iters": 64},
        "memory": {"stochastic_rounding": rounding != NEAREST},
        "optimizer": {"class_path": optimizer, "init_args": {"lr": lr, "betas": [0.9, 0.95]}},
    }
    return set_up(parse(TrainConfig, [], settings))


def measure(
    data: Path, precision: str, optimizer: str, rounding: str, steps: int, lr: float
) -> dict[str, Any]:
    """Train one variant in this process: losses, and bytes per parameter."""
    run = make_run(data, precision, optimizer, rounding, steps, lr)
    losses = []
    for step in range(steps):
        figures = gradients(run, run.data())
        rate = learning_rate(step, run.peak_lr, run.config.train.min_lr, run.horizon, run.config.schedule)
        update(run, figures, rate)
        losses.append(figures.train_loss)
    val_loss = validate(run)
    run.close()
    parameters = sum(p.numel() for p in run.gpt.parameters())
    state = sum(t.nbytes for t in tensors_in(run.optimizer.state_dict()["state"]))
    width = 4 if precision == "32-true" else 2
    return {
        "first": losses[0],
        "last": statistics.mean(losses[-10:]),
        "val": val_loss,
        "state": state / parameters,
        "all": state / parameters + 2 * width,
    }


def update_times(rounds: int = 9) -> dict[str, float]:
    """The update time of each variant, as a multiple of the first one's."""
    torch.set_num_threads(1)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    seconds: dict[str, list[float]] = {}
    for precision, name, rounding in VARIANTS:
        model = GPT(Config(**MODEL))
        initialize(model, seed=0)
        model.to(torch.float32 if precision == "32-true" else torch.bfloat16)
        memory = MemoryArgs(stochastic_rounding=rounding != NEAREST)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer = make_optimizer(ClassSpec(name, {"lr": 1e-3}), model, precision, memory)
        optimizer.step()
        variant_name = " ".join((precision, name, rounding))
        optimizers[variant_name], seconds[variant_name] = optimizer, []
    for _ in range(rounds):
        for variant_name, optimizer in optimizers.items():
            started = time.perf_counter()
            optimizer.step()
            seconds[variant_name].append(time.perf_counter() - started)
    medians = [statistics.median(values) for values in seconds.values()]
    return {name: median / medians[0] for name, median in zip(seconds, medians, strict=True)}


def check_adamw() -> None:
    """litmoe's AdamW in fp32 gives torch's weights to the bit, on parameters of several sizes."""
    ours, theirs = ([torch.nn.Parameter(torch.ones(n)) for n in (7, 4096, 600_000)] for _ in range(2))
    own = AdamW(ours, lr=0.01)
    torchs = torch.optim.AdamW(theirs, lr=0.01, foreach=False, fused=False)
    for step in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
            b.grad = a.grad.clone()
        own.step()
        torchs.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "AdamW differs from torch's"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "variant", nargs="*", help="text, precision, optimizer and rounding, for this process"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=0.003)
    args = parser.parse_args()
    if args.variant:
        data, precision, optimizer, rounding = args.variant
        report(measure(Path(data), precision, optimizer, rounding, args.steps, args.lr))
        return
    check_adamw()
    with tempfile.TemporaryDirectory() as folder:
        prepare_data(Path(folder))
        more = [f"--steps={args.steps}", f"--lr={args.lr}"]
        sides = {" ".join(v): partial(variant, __file__, folder, *v, *more, threads=1) for v in VARIANTS}
        found = interleaved(sides, args.repeats)
    for precision in ("32-true", "bf16-true"):
        firsts = {round(row["first"], 6) for name, row in found.items() if name.startswith(precision)}
        assert len(firsts) == 1, f"{precision}: the optimizers did not start from the same loss: {firsts}"
    times = update_times()
    print(
        "| precision, optimizer | state | with weight and gradient | update | train loss | validation loss |"
    )
    print("|---|---|---|---|---|---|")
    for name, row in found.items():
        print(
            f"| {name.strip()} | {row['state']:.2f} B | {row['all']:.2f} B | {times[name]:.1f} "
            f"| {row['last']:.3f} | {row['val']:.3f} |"
        )


if __name__ == "__main__":
    main()
