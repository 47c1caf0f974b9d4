"""Upload a prepared data set to Weights & Biases; the same as `litmoe wandb-dataset`."""

import sys

from litmoe.cli import run
from litmoe.interop.commands import wandb_dataset_command

if __name__ == "__main__":
    sys.exit(run(wandb_dataset_command, sys.argv[1:], "wandb_dataset.py"))
