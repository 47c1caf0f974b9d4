"""Keep a small run of the version at hand, for ``tests/test_versions.py`` of the versions that follow.

    python tests/versions/make.py

Prepares 16 of the built-in stories, trains a model of 20 thousand parameters for 8 steps with a checkpoint at step
4, evaluates that checkpoint, and keeps text, token store, tokenizer, checkpoint and results in
``tests/versions/<version>/``, 0.3 MB. Run it once for every version, on the commit that is released.
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the tests; before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.versions import EXPECTED, FIRST, LAST, VERSIONS, figures, fingerprints, machine

from litmoe import EvaluateConfig, PrepareConfig, __version__, evaluate, load_train_config, prepare, train

RUN = """\
model_config:
  name: MoE-fixture
  block_size: 32
  vocab_size: 272
  padded_vocab_size: 272
  n_layer: 2
  n_embd: 16
  n_head: 2
  n_query_groups: 1
  mlp_class_name: LLaMAMoE
  n_expert: 4
  n_expert_per_token: 2
  intermediate_size: 24
  moe_intermediate_size: 24
  norm_class_name: RMSNorm
  bias: false
  parallel_residual: false
  rotary_percentage: 1.0
out_dir: run
precision: 32-true
accelerator: cpu
devices: 1
tokenizer_dir: data/tokenizer
data:
  class_path: litmoe.data.TextFiles
  init_args:
    train_data_path: data/train
    val_data_path: data/val
    num_workers: 1
train:
  global_batch_size: 8
  micro_batch_size: 4
  max_steps: 8
  save_interval: 4
  lr_warmup_steps: 2
  min_lr: 0.0001
eval:
  interval: 4
  max_iters: 6
optimizer:
  class_path: AdamW
  init_args:
    lr: 0.003
"""


def main() -> None:
    """Make the run in a temporary folder, by relative paths only, and keep what later versions must read."""
    kept = VERSIONS / __version__
    if kept.exists():
        sys.exit(f"{kept} is there already: a version is kept once")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("run.yaml").write_text(RUN, encoding="utf-8", newline="\n")
        prepare(
            PrepareConfig(
                source=["sample"],
                data_dir=Path("data"),
                tokenizer="train",
                vocab_size=272,
                tokenizer_dir=Path("data/tokenizer"),
                val_fraction=0.2,
                max_documents=16,
                progress=False,
            )
        )
        final = train(load_train_config(Path("run.yaml"))).checkpoint
        checkpoint = Path(f"run/step-{FIRST:08d}")
        evaluation = evaluate(EvaluateConfig(checkpoint=checkpoint, accelerator="cpu", progress=False))
        expected = {
            "machine": machine(),
            "final": fingerprints(final),
            "metrics": figures(Path("run/metrics.csv")),
            "evaluation": asdict(evaluation),
        }
        assert len(expected["metrics"]) == LAST
        Path(EXPECTED).write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8", newline="\n")
        shutil.copytree("data", kept / "data", ignore=shutil.ignore_patterns(".*"))
        shutil.copytree(checkpoint, kept / checkpoint)
        for name in ("run.yaml", "run/metrics.csv", EXPECTED):
            shutil.copy(name, kept / name)
        os.chdir(kept)  # Windows does not remove a folder that a process stands in
    print(f"kept in {kept}")


if __name__ == "__main__":
    main()
