"""Write the reference pages from the settings' dataclasses and the commands' help.

    python docs/make_reference.py

Writes ``reference/settings.md`` and ``reference/commands.md`` beside this file. ``tests/cli/test_help.py``
fails when they are out of date.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from litmoe.cli.command import Command
from litmoe.cli.help import default_text, groups, help_text
from litmoe.cli.main import COMMANDS
from litmoe.cli.train import TRAIN
from litmoe.config import ClassSpec, EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig
from litmoe.config.describe import Setting
from litmoe.config.options import options_of, spelled
from litmoe.config.values import shown

FOLDER = Path(__file__).parent / "reference"
ORIGIN = (
    "<!-- Written by docs/make_reference.py from the settings themselves: change those, and run it again. -->"
)

SETTINGS = f"""\
# Settings
{ORIGIN}

Every setting of a training run, by its name in a YAML file and by its option. A preset, a YAML file (`--config`)
and options may each give some; later ones override earlier ones, and what nobody gives has the default below.

- **Names.** Dashes and underscores are the same in options: `--max-tokens` and `--max_tokens`. Settings of the
  section `train` may be given without it: `--max-tokens` is `--train.max-tokens`.
- **Numbers** are those of YAML 1.2, in files and options alike: `1000`, `1_000_000`, `1e6` and `0.5`; `042` is 42.
  Where a whole number is expected, `1e6` is one. Truth values are `true` and `false`; `yes` and `on` are words.
- **Paths** may begin with `~`, the home folder.
- **null** means "none", as the setting's meaning says.
- **An unknown setting**, a value of the wrong type, and a setting that has no effect in its combination are
  refused, in one line.
"""

COMMANDS_PAGE = f"""\
# Commands
{ORIGIN}

`litmoe COMMAND`, `python -m litmoe COMMAND` and, where there is one, the script at the root of the repository are
the same. `litmoe COMMAND --help` shows the essential options, `--help all` every one.

Exit codes: 0, done. 1, a negative result (the runs of `verify-resume` differ), or one that could not be printed.
2, a mistake, explained in one line. 130, 143 and 129, ended by Ctrl-C, SIGTERM or a closed terminal, with the
state saved.
"""

SCRIPTS = {
    "prepare": "prepare_data.py",
    "train": "run_train.py",
    "generate": "generate.py",
    "evaluate": "evaluate.py",
    "wandb-dataset": "wandb_dataset.py",
}


def settings_page() -> str:
    """The settings of a run, section by section, then those of the other jobs."""
    parts = [SETTINGS]
    of_a_run = Command(TRAIN.run, (TrainConfig,), TRAIN.usage)
    for title, options in groups(of_a_run):
        section, _, meaning = title.partition(": ")
        heading = f"`{section}`: {meaning}" if meaning else title
        parts.append(f"## {heading}\n\n{table(options)}")
    for name, kind in (
        ("prepare", PrepareConfig),
        ("generate", GenerateConfig),
        ("evaluate", EvaluateConfig),
    ):
        parts.append(f"## Of `litmoe {name}`\n\n{table(options_of(kind))}")
    return "\n".join(parts)


def commands_page() -> str:
    """Every command: its script, its own options where those of training are beside them, and its help."""
    listing = "\n".join(f"- [`{name}`](#{name}): {command.summary}" for name, command in COMMANDS.items())
    parts = [COMMANDS_PAGE, listing]
    for name, command in COMMANDS.items():
        about = f"The script is `{SCRIPTS[name]}`.\n\n" if name in SCRIPTS else ""
        if TrainConfig in command.options:
            own = [
                option for kind in command.options if kind is not TrainConfig for option in options_of(kind)
            ]
            about += f"{table(own)}\nThe other options are the [settings of a run](settings.md).\n\n"
        parts.append(f"\n## {name}\n\n{about}```text\n{help_text(command, f'litmoe {name}')}```")
    return "\n".join(parts) + "\n"


def table(options: list[Setting]) -> str:
    """Settings as a table: name, option, type, default, meaning."""
    rows = ["| setting | option | type | default | meaning |", "|---|---|---|---|---|", *map(row, options)]
    return "\n".join(rows) + "\n"


def row(option: Setting) -> str:
    """One setting as a row of a table."""
    name, kind = f"--{spelled(option.name)}", "NAME" if option.section is ClassSpec else shown(option.hint)
    if option.name.endswith(".init_args"):
        name, kind = f"{name}.KEY", "VALUE"
    default = default_text(option.default) or ("false" if option.default is False else "")
    code = [f"`{cell}`" if cell else "" for cell in (option.name, name, kind, default)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [*code, markdown(option.meaning)]) + " |"


def markdown(text: str) -> str:
    """A docstring's reStructuredText as Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", text)


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with its file."""
    yield FOLDER / "settings.md", settings_page()
    yield FOLDER / "commands.md", commands_page()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path}")
