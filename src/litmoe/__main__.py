"""``python -m litmoe`` is the console script ``litmoe``."""

import sys

from litmoe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
