"""Write text with a trained model; the same as `litmoe generate`."""

import sys

from litmoe.cli.main import generate_command, run

if __name__ == "__main__":
    sys.exit(run(generate_command, sys.argv[1:], "generate.py"))
