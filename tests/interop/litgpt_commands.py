"""Runs commands of LitGPT, one after another, as their own command line would: a process of its own for tests.

Usage: ``python litgpt_commands.py COMMANDS.json``. The file holds the model to know by the name Mixtral-test, and
the commands' words; what each command printed and how it ended is written beside it.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(words: list[str], stdin: str) -> dict[str, Any]:
    from litgpt.__main__ import main

    sys.argv, sys.stdin = ["litgpt", *words], io.StringIO(stdin)
    printed = io.StringIO()
    ended = "done"
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as error:
            ended = f"exit {error.code}"
        except Exception as error:
            ended = f"{type(error).__name__}: {error}"
    return {"ended": ended, "printed": printed.getvalue()}


if __name__ == "__main__":
    import litgpt.config
    import torch._dynamo
    import torch.fx.experimental._config

    plan_file = Path(sys.argv[1])
    plan = json.loads(plan_file.read_text())
    litgpt.config.name_to_config["Mixtral-test"] = plan["model"]
    # LitGPT 0.5.13 counts the operations of its own MoE layer on the meta device, which torch refuses by default.
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True
    torch._dynamo.config.disable = (
        True  # a compiled model is wrapped the same, without the minute of compiling
    )
    results = [run(command["words"], command.get("stdin", "")) for command in plan["commands"]]
    plan_file.with_suffix(".results.json").write_text(json.dumps(results))
