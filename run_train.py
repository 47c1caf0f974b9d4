"""Train a model; the same as `litmoe train`."""

import sys

from litmoe.cli.main import run
from litmoe.cli.train import TRAIN

if __name__ == "__main__":
    sys.exit(run(TRAIN, sys.argv[1:], "run_train.py"))
