"""How close `litmoe plan` comes to the memory of a real step: 40 configurations, on the CPU.

    python benchmarks/plan_accuracy.py [--only TEXT]

For each, a real training step on random tokens runs under torch's profiler, which sees every allocation and
release. Its peak, weights and optimizer included, is compared with the plan's estimate, for which nothing is
allocated. Exits with 1 if any estimate is off by more than 5 %.
"""

import argparse
import sys
from typing import Any

import torch
from lightning.fabric import Fabric
from measuring import SMALL_MODEL

from litmoe.config import TrainConfig
from litmoe.config.load import merge, parse
from litmoe.diagnostics.allocations import peak_above_start
from litmoe.diagnostics.step_memory import estimate_step
from litmoe.diagnostics.trial import RandomText, held_bytes
from litmoe.training.run import Run
from litmoe.training.schedule import Horizon
from litmoe.training.setup import assemble, model_and_length
from litmoe.training.step import gradients, update

BASE = SMALL_MODEL | {"block_size": 512, "vocab_size": 2048, "padded_vocab_size": 2048, "n_layer": 4}
MODELS: dict[str, dict[str, Any]] = {
    "narrow": {},
    "wide": {"n_embd": 256, "n_head": 8, "intermediate_size": 512, "moe_intermediate_size": 512},
    "deep": {"n_embd": 96, "n_layer": 10, "intermediate_size": 192, "moe_intermediate_size": 192},
    "vocabulary": {"vocab_size": 8192, "padded_vocab_size": 8192, "n_layer": 3},
    "dense": {"mlp_class_name": "LLaMAMLP", "n_expert": 0, "n_expert_per_token": 0},
}
# model, windows x tokens, micro-batches, precision, optimizer, recompute, other settings
CASES: list[tuple[str, int, int, int, str, str, str, dict[str, Any]]] = [
    *[(name, 2, 256, 2, "32-true", "AdamW", "none", {}) for name in MODELS],
    *[(name, 2, 256, 2, "bf16-true", "AdamW8bit", "none", {}) for name in MODELS],
    *[("narrow", 1, length, 2, "32-true", "AdamW", "none", {}) for length in (64, 128, 512)],
    *[("narrow", size, 128, 1, "32-true", "AdamW", "none", {}) for size in (1, 4, 8)],
    *[("narrow", 2, 256, 2, precision, "AdamW", "none", {}) for precision in ("bf16-mixed", "bf16-true")],
    *[
        ("narrow", 4, 256, 2, precision, "AdamW", recompute, {})
        for precision in ("32-true", "bf16-mixed", "bf16-true")
        for recompute in ("experts", "blocks")
    ],
    *[("wide", 2, 256, 2, "32-true", name, "none", {}) for name in ("AdamW8bit", "AdamW4bit", "Muon", "SGD")],
    *[("wide", 2, 256, 2, "bf16-true", name, "experts", {}) for name in ("AdamW4bit", "Muon")],
    *[("deep", 2, 512, 1, "32-true", "SGD", recompute, {}) for recompute in ("none", "experts", "blocks")],
    *[
        ("deep", 2, 256, 1, precision, name, "none", {"memory": {"step_in_backward": True}})
        for precision, name in (("32-true", "AdamW"), ("bf16-true", "AdamW8bit"))
    ],
    *[
        ("vocabulary", 2, 128, 2, "32-true", "AdamW", "none", {"train": {"tie_embeddings": tied}})
        for tied in (True, False)
    ],
    ("narrow", 2, 256, 2, "32-true", "NAdam", "none", {"train": {"max_norm": None}}),
    ("narrow", 2, 256, 2, "32-true", "AdamW", "none", {"moe": {"balance": "bias"}}),
    ("wide", 1, 512, 2, "bf16-mixed", "AdamW8bit", "blocks", {}),
]


def configuration(
    model: str, windows: int, length: int, micro_batches: int, precision: str, optimizer: str, recompute: str,
    other: dict[str, Any],
) -> TrainConfig:  # fmt: skip
    settings = {
        "model_config": BASE | MODELS[model],
        "precision": precision,
        "train": {
            "micro_batch_size": windows,
            "global_batch_size": windows * micro_batches,
            "max_seq_length": length,
            "max_steps": 1,
            "max_norm": None if "memory" in other else 1.0,
        },
        "optimizer": {"class_path": optimizer, "init_args": {"lr": 0.001}},
        "memory": {"recompute": recompute},
    }
    return parse(TrainConfig, [], merge([settings, other]))


def allocated(config: TrainConfig) -> int:
    """Peak bytes in use in the second step, with everything that is held between steps."""
    model_config, seq_length = model_and_length(config)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    text = RandomText((config.train.micro_batch_size, seq_length), model_config.vocab_size)
    run = assemble(config, fabric, model_config, seq_length, text, Horizon(1, 0, 1))
    _step(run)
    return held_bytes(run) + peak_above_start(lambda: _step(run), torch.device("cpu"))


def _step(run: Run) -> None:
    update(run, gradients(run, run.data()), run.peak_lr)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="only configurations whose line contains this text")
    args = parser.parse_args()
    errors = []
    print(f"{'configuration':<78}{'MB':>8}{'estimate':>10}{'error':>8}")
    for case in CASES:
        model, windows, length, micro_batches, *rest = case
        others = " ".join(f"{key}={value}" for part in case[-1].values() for key, value in part.items())
        line = (
            f"{model:<11}{micro_batches} x {windows} x {length:<4} {' '.join(map(str, rest[:-1]))} {others}"
        )
        if args.only not in line:
            continue
        config = configuration(*case)
        real, estimated = allocated(config), estimate_step(config).total
        errors.append(estimated / real - 1)
        print(f"{line:<78}{real / 1e6:>8.2f}{estimated / 1e6:>10.2f}{errors[-1]:>8.1%}", flush=True)
    worst = max(errors, key=abs)
    mean = sum(map(abs, errors)) / len(errors)
    print(f"\n{len(errors)} configurations, mean error {mean:.1%}, largest {worst:.1%}")
    return 0 if abs(worst) <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
