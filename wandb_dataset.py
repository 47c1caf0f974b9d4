"""Upload a prepared data set to Weights & Biases; the same as `litmoe wandb-dataset`."""

import sys

from litmoe.cli.exchange import wandb_dataset_command
from litmoe.cli.main import run

if __name__ == "__main__":
    sys.exit(run(wandb_dataset_command, sys.argv[1:], "wandb_dataset.py"))
