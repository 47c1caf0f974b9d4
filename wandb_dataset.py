"""Upload a prepared data set to Weights & Biases; the same as `litmoe wandb-dataset`."""

import sys

from litmoe.cli.main import run
from litmoe.cli.wandb_dataset import WANDB_DATASET

if __name__ == "__main__":
    sys.exit(run(WANDB_DATASET, sys.argv[1:], "wandb_dataset.py"))
