"""Time from a command to its first training step, and to its help text.

    python benchmarks/startup.py [--repeats 3]

``litmoe train --preset tiny`` against ``litgpt pretrain`` with a dense model of the same sizes (LitGPT 0.5.13
cannot start an MoE with torch 2.15: it counts FLOPs on the meta device), the same text and tokenizer, and the
data of both prepared beforehand. LitGPT always compiles its model; the compiler's caches are warm. The line
that each prints for its first step ends the measurement. Python's bytecode is cached, as in every run but the
first.

Each runs in an environment with only its own requirements (made of symbolic links into this one), because
Lightning imports torchmetrics, which imports torchvision, SciPy and Transformers where they are installed.
``--everything`` measures in this environment as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml
from measuring import ROOT, Row, interleaved, table

sys.path.insert(0, str(ROOT / "tests"))

from support.environments import linked_environment

from litmoe.config import PrepareConfig
from litmoe.config.load import load_train_config
from litmoe.data.prepare import prepare


def rows(repeats: int = 3, everything: bool = False) -> list[Row]:
    """Seconds to the first step, litmoe's and LitGPT's, and to litmoe's help."""
    with tempfile.TemporaryDirectory(prefix="litmoe-startup-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _prepare(folder)
        environment = _environment(folder)
        ours_python = theirs_python = Path(sys.executable)
        if not everything:
            with (ROOT / "pyproject.toml").open("rb") as file:
                requirements = tomllib.load(file)["project"]["dependencies"]
            ours_python = linked_environment(folder / "ours", requirements)
            theirs_python = linked_environment(folder / "theirs", ["litgpt", "litdata"])
        train = (
            "-m litmoe train --preset tiny --max-steps 1 --log-interval 1 --data-dir text --tokenizer-dir "
        )
        train += "tokenizer --sample.final 0 --eval.final_validation false --out-dir"
        ours = [str(ours_python), *train.split()]
        pretrain = f"-m litgpt pretrain --config {_litgpt_config(folder).name} --out_dir"
        litgpt = [str(theirs_python), *pretrain.split()]
        runs = 0

        def seconds(command: Sequence[str], mark: str) -> dict[str, float]:
            nonlocal runs
            runs += 1
            return {"s": seconds_to(mark, [*command, f"out-{runs}"], folder, environment)}

        to_step = {
            "litmoe": lambda: seconds(ours, "step 1/1"),
            "litgpt": lambda: seconds(litgpt, "Epoch 1 | iter 1 step 1"),
        }
        for measure in to_step.values():
            measure()  # fills the caches of bytecode, of the disk and of LitGPT's compiler
        medians = interleaved(to_step, repeats)
        to_help = {
            args: partial(_seconds_of, [str(ours_python), "-m", "litmoe", *args.split()], environment)
            for args in ("--help", "train --help")
        }
        helps = interleaved(to_help, repeats)
    return [
        Row("command to first step, tiny preset", medians["litmoe"]["s"], medians["litgpt"]["s"], unit="s"),
        *(Row(f"`litmoe {args}`", helps[args]["s"], unit="s") for args in helps),
    ]


def seconds_to(mark: str, args: Sequence[str], folder: Path, environment: dict[str, str]) -> float:
    """Seconds until a command prints ``mark``; the process is then ended.

    Raises:
        RuntimeError: it ended without printing that.
    """
    start = time.perf_counter()
    said = []
    with subprocess.Popen(
        args,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if mark in line:
                taken = time.perf_counter() - start
                process.kill()
                return taken
    raise RuntimeError("".join(said[-20:]))


def _seconds_of(args: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    start = time.perf_counter()
    subprocess.run(args, env=environment, check=True, capture_output=True)
    return {"s": time.perf_counter() - start}


def _prepare(folder: Path) -> None:
    prepare(
        PrepareConfig(
            source=["sample"],
            data_dir=folder / "text",
            tokenizer="train",
            vocab_size=2048,
            tokenizer_dir=folder / "tokenizer",
            max_documents=1000,
            progress=False,
        ),
        say=lambda _: None,
    )
    for side in ("train", "val"):  # LitGPT keeps its data below the text, under the names of litmoe's stores
        (folder / "litgpt" / side).mkdir(parents=True)
        for path in (folder / "text" / side).glob("*.txt"):
            shutil.copy(path, folder / "litgpt" / side)


def _litgpt_config(folder: Path) -> Path:
    """A file for ``litgpt pretrain``: the tiny preset, its MLPs dense and as wide as two experts."""
    ours = load_train_config(preset="tiny")
    assert isinstance(ours.model_config, dict)
    model = dict(ours.model_config)
    for key in ("n_expert", "n_expert_per_token", "moe_intermediate_size"):
        del model[key]
    model |= {"name": "dense-tiny", "mlp_class_name": "LLaMAMLP", "intermediate_size": 768}
    train = ours.train
    settings = {
        "model_name": "dense-tiny",
        "model_config": model,
        "precision": "32-true",
        "tokenizer_dir": "tokenizer",
        "logger_name": "csv",
        "devices": 1,
        "data": {
            "class_path": "litgpt.data.TextFiles",
            "init_args": {
                "train_data_path": "litgpt/train",
                "val_data_path": "litgpt/val",
                "num_workers": 1,
            },
        },
        "train": {
            "global_batch_size": train.global_batch_size,
            "micro_batch_size": train.micro_batch_size,
            "max_tokens": 100 * train.global_batch_size * 256,
            "max_seq_length": 256,
            "lr_warmup_steps": 10,
            "log_interval": 1,
            "tie_embeddings": False,
        },
        "eval": {"max_iters": 2},
    }
    path = folder / "litgpt.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def _environment(folder: Path) -> dict[str, str]:
    """Environment variables: bytecode is cached, and LitData does not empty the system's temporary folder."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "DATA_OPTIMIZER_CACHE_FOLDER": str(folder / "litdata-cache"),
        "DATA_OPTIMIZER_DATA_CACHE_FOLDER": str(folder / "litdata-data"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--everything", action="store_true", help="measure in this environment as it is")
    args = parser.parse_args()
    print(table(rows(args.repeats, args.everything)))


if __name__ == "__main__":
    main()
