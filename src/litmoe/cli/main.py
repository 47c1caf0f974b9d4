"""Entry points of the commands: pick one, run it, return its exit code.

``litmoe train ...``, ``python -m litmoe train ...`` and ``python run_train.py ...`` are the same. A mistake is
explained in one line, without a traceback, with exit code 2.
"""

import os
import sys
from collections.abc import Sequence

from litmoe.cli.bench import BENCH
from litmoe.cli.command import Command
from litmoe.cli.console import Console, OutputEndedError
from litmoe.cli.evaluate import EVALUATE
from litmoe.cli.exchange import EXPORT, IMPORT
from litmoe.cli.generate import GENERATE
from litmoe.cli.help import help_text, help_wanted
from litmoe.cli.inspect import INSPECT
from litmoe.cli.plan import PLAN
from litmoe.cli.prepare import PREPARE
from litmoe.cli.quiet import quiet_libraries
from litmoe.cli.report import REPORT, RUNS
from litmoe.cli.train import TRAIN
from litmoe.cli.verify_resume import VERIFY_RESUME
from litmoe.cli.wandb_dataset import WANDB_DATASET
from litmoe.distributed.world import speaks
from litmoe.errors import LitMoEError, RankLostError, RunInterrupted
from litmoe.messages import nearest
from litmoe.version import __version__

COMMANDS: dict[str, Command] = {
    "prepare": PREPARE,
    "plan": PLAN,
    "train": TRAIN,
    "runs": RUNS,
    "report": REPORT,
    "inspect": INSPECT,
    "generate": GENERATE,
    "evaluate": EVALUATE,
    "export": EXPORT,
    "import": IMPORT,
    "wandb-dataset": WANDB_DATASET,
    "verify-resume": VERIFY_RESUME,
    "bench": BENCH,
}


def run(command: Command, args: Sequence[str], program: str) -> int:
    """Run one command; returns its exit code.

    0: done. 1: a negative result (the runs of ``verify-resume`` differ), or one that could not be printed. 2: a
    mistake, explained in one line. 130, 143: ended by Ctrl-C or SIGTERM, with the state saved.
    """
    console = Console(program)
    quiet_libraries()
    if (level := help_wanted(args)) is not None:
        console.write(help_text(command, program, level))
        return console.exit_code(result_is_printed=True)
    try:
        code = command.run(args, console) or 0
    except RunInterrupted as ended:
        console.warn(f"{program}: {ended}")
        return ended.exit_code
    except LitMoEError as error:
        if isinstance(error, RankLostError) or speaks(os.environ):
            console.warn(f"{program}: {error}")
        return error.exit_code if isinstance(error, RankLostError) else 2
    except KeyboardInterrupt:
        console.warn(f"{program}: interrupted")
        return 130
    except OutputEndedError:
        code = 0
    except BrokenPipeError as error:  # a library's own output
        console.lose(error)
        code = 0 if command.result_is_printed else 1
    return code or console.exit_code(command.result_is_printed)


def main(args: Sequence[str] | None = None) -> int:
    """The console script ``litmoe``."""
    args = list(sys.argv[1:] if args is None else args)
    if args and args[0] in COMMANDS:
        return run(COMMANDS[args[0]], args[1:], f"litmoe {args[0]}")
    console = Console()
    if args and args[0] not in ("-h", "--help", "--version"):
        console.warn(f"litmoe: there is no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return 2
    console.say(__version__ if args == ["--version"] else _usage())
    return console.exit_code(result_is_printed=True)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"usage: litmoe COMMAND [options]\n\n{listing}\n\n`litmoe COMMAND --help` shows a command's options."
    )


if __name__ == "__main__":
    sys.exit(main())
