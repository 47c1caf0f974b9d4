"""Kill ranks of runs of 2 to 4 processes at random instants, many times, and check what is promised each time.

    python benchmarks/rank_kills.py [--kills 200] [--seed 0]

Needs a system with fork. Every kill hits one rank in set-up, data, step, validation, sample text, metrics or
save. All others must be gone within 10 seconds, and one line names the rank; no step may be lost beyond the
last two saves; the run, resumed by another number of processes, must have the losses of one undisturbed process
(to 1e-5).
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.distributed import Nursery
from support.rank_kills import kill_again_and_again
from support.small import run_settings

from litmoe.config import PrepareConfig
from litmoe.data.prepare import prepare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="litmoe-rank-kills-") as name:
        folder = Path(name)
        prepare(
            PrepareConfig(
                source=["sample"],
                data_dir=folder / "data",
                tokenizer="train",
                vocab_size=512,
                tokenizer_dir=folder / "data/tokenizer",
                max_documents=[60],
            )
        )
        settings = {
            **run_settings(folder / "data", Path("out"), num_workers=1),
            "train": {"lr_warmup_steps": 2, "min_lr": 0.0001},
            "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.003}},
            "report": False,
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        started = time.monotonic()
        with Nursery(sys.executable) as nursery:
            outcome = kill_again_and_again(
                nursery, folder, args.kills, args.seed, say=lambda line: print(line, flush=True)
            )
    instants = Counter(text.split()[0] for text in outcome.killed)
    print()
    print(f"kills                              {len(outcome.killed)} in {time.monotonic() - started:.0f} s")
    print(f"by instant                         {', '.join(f'{n} {i}' for i, n in instants.most_common())}")
    print(f"last rank gone after, at most      {outcome.slowest:.1f} s")
    print(f"steps lost, at most                {outcome.most_lost} (a checkpoint every 3)")
    print(f"runs finished and compared         {outcome.finished}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
