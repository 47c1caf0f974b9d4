"""Make text shards, tokenizer and token stores; the same as `litmoe prepare`."""

import sys

from litmoe.cli.main import run
from litmoe.cli.prepare import PREPARE

if __name__ == "__main__":
    sys.exit(run(PREPARE, sys.argv[1:], "prepare_data.py"))
