"""Measure a trained model; the same as `litmoe evaluate`."""

import sys

from litmoe.cli.evaluate import EVALUATE
from litmoe.cli.main import run

if __name__ == "__main__":
    sys.exit(run(EVALUATE, sys.argv[1:], "evaluate.py"))
