"""Measure a trained model; the same as `litmoe evaluate`."""

import sys

from litmoe.cli.main import evaluate_command, run

if __name__ == "__main__":
    sys.exit(run(evaluate_command, sys.argv[1:], "evaluate.py"))
