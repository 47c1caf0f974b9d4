"""Kill a training process many times at random instants, resume it each time, and compare the results.

    python benchmarks/kill_resume.py [--kills 60] [--steps 600] [--seed 0] [--synchronous]

Trains a small MoE twice on the CPU: once without interruption, once killed (SIGKILL) and resumed. After every
kill all checkpoints under a final name must be valid, the metrics must have no gap and no repetition, and no
step may be lost beyond the save interval; a thread that reads the folder all the time must never see a partial
checkpoint. At the end weights, optimizer, random-number states and metrics must be equal to the bit. Prints a
line per kill and a table.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.killing import Trainer, train_uninterrupted, train_with_kills
from support.small import MODEL

from litmoe.config import ClassSpec, EvalArgs, PrepareConfig, TrainArgs, TrainConfig
from litmoe.data.prepare import prepare
from litmoe.diagnostics.verify_resume import first_difference

SAVE_INTERVAL = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--synchronous", action="store_true", help="do not write checkpoints in the background"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="litmoe-kill-resume-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        whole = _config(folder, args.steps, asynchronous=not args.synchronous)
        killed = replace(whole, out_dir=folder / "killed", resume="auto")
        with Trainer() as trainer:
            seconds = train_uninterrupted(trainer, whole, folder / "whole.yaml")
            print(f"uninterrupted: {args.steps} steps in {seconds:.1f} s")
            ordeal = train_with_kills(
                trainer,
                lambda start: killed,
                folder / "killed.yaml",
                args.steps,
                seconds,
                args.kills,
                args.seed,
                say=lambda line: print(line, flush=True),
            )
        difference = first_difference(whole.out_dir, killed.out_dir)
    repeated = [kill.step - kill.saved for kill in ordeal.kills]
    saving = sum(kill.saving for kill in ordeal.kills)
    print()
    print(f"kills                            {len(ordeal.kills)}")
    print(f"  while a checkpoint was written {saving}")
    print(f"  at any other instant           {len(ordeal.kills) - saving}")
    print(f"save interval                    {SAVE_INTERVAL} steps, {_how(args.synchronous)}")
    print(f"steps repeated                   {sum(repeated)} in all, {max(repeated, default=0)} at most")
    print(f"checkpoints seen by the watcher  {ordeal.looks}, all valid")
    print(f"time uninterrupted               {seconds:.1f} s")
    print(f"time with kills and restarts     {ordeal.seconds:.1f} s")
    print(f"final state                      {difference or 'identical to the bit'}")
    return 0 if difference is None else 1


def _how(synchronous: bool) -> str:
    return "written before the next step" if synchronous else "written in the background"


def _config(folder: Path, steps: int, asynchronous: bool) -> TrainConfig:
    data, tokenizer_dir = folder / "data", folder / "data" / "tokenizer"
    prepare(
        PrepareConfig(
            source=["sample"],
            data_dir=data,
            tokenizer="train",
            vocab_size=512,
            tokenizer_dir=tokenizer_dir,
            val_fraction=0.2,
            max_documents=60,
            progress=False,
        ),
        say=lambda _: None,
    )
    paths = {f"{split}_data_path": str(data / split) for split in ("train", "val")}
    config = TrainConfig(
        model_config=MODEL,
        out_dir=folder / "whole",
        precision="32-true",
        accelerator="cpu",
        devices=1,
        tokenizer_dir=tokenizer_dir,
        data=ClassSpec("litmoe.data.TextFiles", {**paths, "num_workers": 1}),
        train=TrainArgs(
            max_steps=steps,
            save_interval=SAVE_INTERVAL,
            global_batch_size=8,
            micro_batch_size=4,
            lr_warmup_steps=5,
        ),
        eval=EvalArgs(interval=20, max_iters=4),
        optimizer=ClassSpec("torch.optim.AdamW", {"lr": 0.003}),
    )
    config.checkpoint.asynchronous = asynchronous
    return config


if __name__ == "__main__":
    sys.exit(main())
