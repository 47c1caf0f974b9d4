"""One process of a run under test: ``litmoe train`` from a script file, with instants that can be made long.

``python rank.py OPTIONS`` trains. ``python rank.py --nursery`` imports everything and forks such a process for
every line on its input. ``LITMOE_TEST_SLOW="validate=3,flush=1"`` makes the named instants last so many seconds
more, and ``LITMOE_TEST_FAIL="data"`` makes one fail: what happens then is tested, not how long an instant lasts.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Python puts this script's folder first, where `tokenizers.py` is not the library
sys.path[0] = str(Path(__file__).parents[1])


def main(args: list[str]) -> int:
    """Train as the command does; returns its exit code."""
    from support import instants

    instants.install(os.environ.get("LITMOE_TEST_SLOW", ""), os.environ.get("LITMOE_TEST_FAIL", ""))
    from litmoe.cli.main import main as litmoe

    return litmoe(["train", *args])


def nursery() -> None:
    """Fork a process for every question; answer with its number, and later with its exit code."""
    import tokenizers  # noqa: F401
    import torch.distributed
    import torch.optim  # noqa: F401

    import litmoe.cli.main
    import litmoe.training.loop  # noqa: F401

    print(json.dumps("ready"), flush=True)
    codes: dict[int, int] = {}
    for line in sys.stdin:
        question: dict[str, Any] = json.loads(line)
        if question["do"] == "fork":
            pid = os.fork()
            if pid == 0:
                be_rank(question, main)
            print(json.dumps(pid), flush=True)
        else:
            pid = question["pid"]
            if pid not in codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            print(json.dumps(codes.get(pid)), flush=True)


def be_rank(question: dict[str, Any], work: Callable[[list[str]], int]) -> None:
    """The child's life, to its end."""
    os.chdir(question["cwd"])
    os.environ.update(question["env"])
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(question[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [__file__, *question["args"]]
    code = 1
    try:
        code = work(question["args"])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nursery()
    else:
        sys.exit(main(sys.argv[1:]))
