"""Write text with a trained model; the same as `litmoe generate`."""

import sys

from litmoe.cli.generate import GENERATE
from litmoe.cli.main import run

if __name__ == "__main__":
    sys.exit(run(GENERATE, sys.argv[1:], "generate.py"))
