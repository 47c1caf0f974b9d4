"""Train a model; the same as `litmoe train`."""

import sys

from litmoe.cli.main import run, train_command

if __name__ == "__main__":
    sys.exit(run(train_command, sys.argv[1:], "run_train.py"))
