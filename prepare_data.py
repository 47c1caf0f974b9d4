"""Make text shards, tokenizer and token stores; the same as `litmoe prepare`."""

import sys

from litmoe.cli.main import prepare_command, run

if __name__ == "__main__":
    sys.exit(run(prepare_command, sys.argv[1:], "prepare_data.py"))
