"""How long a checkpoint blocks training: asynchronous against synchronous, on the same run, in one process.

    python benchmarks/async_checkpoint.py [--repeats 7] [--out-dir FOLDER]

A model of 35 M parameters (139 MB of weights, 416 MB with AdamW's state) is trained on the built-in stories.
First both ways of saving must write the same content. Then they alternate, and two times are measured: from
calling `save` until the next step can start, and of a step while the thread writes. Goal: the call takes less
than 15 % of the synchronous time. FOLDER should be on the kind of disk that checkpoints are written to.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from litmoe import checkpoint
from litmoe.config import PrepareConfig, TrainConfig
from litmoe.config.load import parse
from litmoe.data.prepare import prepare
from litmoe.training import resume
from litmoe.training.run import Run
from litmoe.training.saving import CheckpointWriter
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update

MODEL = {
    "name": "MoE-35M",
    "block_size": 128,
    "vocab_size": 512,
    "padded_vocab_size": 512,
    "n_layer": 6,
    "n_embd": 384,
    "n_head": 6,
    "n_query_groups": 2,
    "mlp_class_name": "LLaMAMoE",
    "n_expert": 8,
    "n_expert_per_token": 2,
    "intermediate_size": 576,
    "moe_intermediate_size": 576,
    "norm_class_name": "RMSNorm",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
}


def make_run(folder: Path) -> Run:
    """A run of the model on 200 of the built-in stories, ready for its first step."""
    prepare(
        PrepareConfig(
            source=["sample"],
            data_dir=folder / "data",
            tokenizer="train",
            vocab_size=512,
            tokenizer_dir=folder / "tokenizer",
            max_documents=200,
            progress=False,
        ),
        say=lambda _: None,
    )
    settings = {
        "model_config": MODEL,
        "out_dir": str(folder / "out"),
        "tokenizer_dir": str(folder / "tokenizer"),
        "data": {
            "class_path": "litmoe.data.TextFiles",
            "init_args": {
                "train_data_path": str(folder / "data" / "train"),
                "val_data_path": str(folder / "data" / "val"),
            },
        },
        "train": {"global_batch_size": 4, "micro_batch_size": 4, "max_steps": 1000},
    }
    return set_up(parse(TrainConfig, [], settings))


def advance(run: Run) -> None:
    """Train one step."""
    update(run, gradients(run, run.data()), learning_rate=1e-4)
    run.state.step += 1
    run.state.samples += 4


def same(a: object, b: object) -> bool:
    """Whether two nested structures hold equal tensors and values."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def check_same_content(run: Run, writer: CheckpointWriter, folder: Path) -> int:
    """Check that both ways write the same, with training going on meanwhile; the bytes of a checkpoint."""
    checkpoint.save(folder / "synchronous", resume.contents(run))
    writer.save(run, folder / "asynchronous")
    advance(run)
    writer.wait()
    for load in (checkpoint.load_model, checkpoint.load_trainer):
        assert same(load(folder / "synchronous"), load(folder / "asynchronous"))
    return sum(path.stat().st_size for path in (folder / "synchronous").iterdir())


def seconds_of_save(run: Run, writer: CheckpointWriter, folder: Path) -> tuple[float, float]:
    """Seconds until the next step can start, and the median seconds of a step while the rest is written."""
    started = time.perf_counter()
    writer.save(run, folder)
    blocked = time.perf_counter() - started
    steps = []
    while not (folder / checkpoint.MANIFEST).is_file():
        started = time.perf_counter()
        advance(run)
        steps.append(time.perf_counter() - started)
    writer.wait()
    shutil.rmtree(folder)
    return blocked, statistics.median(steps or [0.0])


def synchronous_of(config: TrainConfig) -> TrainConfig:
    """The configuration with checkpoints that block training until they are written."""
    return replace(config, checkpoint=replace(config.checkpoint, asynchronous=False))


def seconds_of_step(run: Run) -> float:
    """Median of three steps with nothing being written."""
    steps = []
    for _ in range(3):
        started = time.perf_counter()
        advance(run)
        steps.append(time.perf_counter() - started)
    return statistics.median(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out-dir", type=Path, help="where to write; everything is removed afterwards")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.out_dir) as name:
        folder = Path(name)
        run = make_run(folder)
        with (
            CheckpointWriter(run.fabric, run.config) as writer,
            CheckpointWriter(run.fabric, synchronous_of(run.config)) as blocking,
        ):
            advance(run)
            size = check_same_content(run, writer, folder / "out")
            weights = sum(parameter.nbytes for parameter in run.gpt.parameters())
            print(f"device           {run.fabric.device}, {torch.get_num_threads()} thread(s)")
            print(
                f"checkpoint       {size / 1e6:.0f} MB, {weights / 1e6:.0f} MB of weights; both write the same"
            )
            print(f"host memory      {writer.host_bytes / 1e6:.0f} MB")
            synchronous, asynchronous, meanwhile, alone = [], [], [], []
            for _ in range(arguments.repeats):
                synchronous.append(seconds_of_save(run, blocking, folder / "out" / "a")[0])
                alone.append(seconds_of_step(run))
                blocked, step = seconds_of_save(run, writer, folder / "out" / "b")
                asynchronous.append(blocked)
                meanwhile.append(step)
            ratios = [a / s for a, s in zip(asynchronous, synchronous, strict=True)]
            slower = [m / a for m, a in zip(meanwhile, alone, strict=True)]
            median = statistics.median
            print(f"synchronous      {median(synchronous):.3f} s blocked (median of {arguments.repeats})")
            print(f"asynchronous     {median(asynchronous):.3f} s blocked")
            print(f"ratio            {median(ratios):.1%}  ({min(ratios):.1%} to {max(ratios):.1%})")
            print(
                f"step             {median(alone):.3f} s alone, {median(meanwhile):.3f} s while it is written"
            )
            print(f"ratio            {median(slower):.2f}  ({min(slower):.2f} to {max(slower):.2f})")
        run.close()


if __name__ == "__main__":
    main()
