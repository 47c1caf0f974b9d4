"""The help of commands, and the reference pages that are made of it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from litmoe.cli.help import help_text, help_wanted
from litmoe.cli.main import COMMANDS, main, run
from litmoe.config import TrainConfig
from litmoe.config.describe import settings_of
from litmoe.config.load import parse
from litmoe.config.options import options_of, spelled
from litmoe.config.values import shown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen(name: str) -> None:
    """80 columns and 24 lines."""
    command = COMMANDS[name]
    text = help_text(command, f"litmoe {name}")
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 24
    assert f"`litmoe {name} --help all`" in text or text == help_text(command, f"litmoe {name}", "all")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_all_has_every_option_as_people_type_it(name: str) -> None:
    text = help_text(COMMANDS[name], f"litmoe {name}", "all")
    options = re.findall(r"^  (--\S+)", text, re.MULTILINE)
    expected = [f"--{spelled(option.name)}" for kind in COMMANDS[name].options for option in options_of(kind)]
    assert sorted(option.removesuffix(".KEY") for option in options) == sorted(expected)
    assert not any("_" in option for option in options)
    for word in ("Union", "Optional", "Literal", "class '", "NoneType", "``", "Annotated", "pathlib"):
        assert word not in text


def test_every_setting_of_training_is_an_option_with_a_meaning() -> None:
    """By another walk over the dataclasses than the help's own."""
    text = help_text(COMMANDS["train"], "litmoe train", "all")
    for setting in settings_of(TrainConfig):
        if setting.section is None and not setting.name.endswith((".class_path", ".init_args")):
            assert re.search(rf"^  --{re.escape(spelled(setting.name))}\b", text, re.MULTILINE), setting.name
            assert setting.meaning, setting.name


@pytest.mark.parametrize(
    "line",
    [
        "--max-tokens INT ",
        "--micro-batch-size INT ",
        "--global-batch-size INT ",
        "--max-seq-length INT ",
        "--resume auto|DIR ",
        "--wandb-dataset NAME ",
        "--config FILE ",
    ],
)
def test_types_are_readable(line: str) -> None:
    assert f"  {line}" in help_text(COMMANDS["train"], "run_train.py")


def test_types() -> None:
    hints = {setting.name: setting.hint for setting in settings_of(TrainConfig)}
    assert shown(hints["moe.balance"]) == "none|switch|bias"
    assert shown(hints["devices"]) == "INT|auto"
    assert shown(hints["sample.prompts"]) == "TEXT ..."


def test_help_is_asked_for_in_several_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert [help_wanted(args) for args in (["-h"], ["--help"], ["--max-steps", "5", "--help"])] == [
        "essentials"
    ] * 3
    assert [help_wanted(args) for args in (["--help", "all"], ["--help=all"])] == ["all"] * 2
    assert [help_wanted(args) for args in ([], ["--prompt", "-h"], ["--prompt=--help"])] == [None] * 3
    assert main(["train", "--help"]) == 0 and main(["--help"]) == 0 and main(["-h"]) == 0
    assert run(COMMANDS["export"], ["--help", "all"], "export") == 0
    assert "--to" in capsys.readouterr().out


def test_nothing_heavy_is_imported_for_help_and_refusals() -> None:
    """A second of torch, for a word that was misspelt, is a second too many."""
    code = (
        "import sys\nfrom litmoe.cli.main import main\n"
        f"for name in {list(COMMANDS)}:\n"
        "    assert main([name, '--help', 'all']) == 0\n"
        "    assert main([name, '--no-such-option', '1']) == 2\n"
        "assert main(['train', '--preset', 'tiny', '--micro-batch-size', '3']) == 2\n"
        "assert main(['plan', '--max-tokens', 'x']) == 2\n"
        "heavy = {'torch', 'litgpt', 'lightning', 'numpy', 'transformers', 'tokenizers', 'datasets'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(COMMANDS) + 2


def test_dashes_and_underscores_are_the_same() -> None:
    for dashes in (
        "--max-tokens",
        "--train.max-tokens",
        "--train.max_tokens",
        "--max_tokens",
        "--train.max-tokens",
    ):
        assert parse(TrainConfig, [dashes, "7"]).train.max_tokens == 7
    for name in ("--optimizer.init-args.weight-decay", "--optimizer.init_args.weight_decay"):
        assert parse(TrainConfig, [name, "7"]).optimizer.init_args["weight_decay"] == 7
    for name in ("--on-oom", "--on_oom", "--faults.on-oom"):
        assert parse(TrainConfig, [name, "shrink"]).faults.on_oom == "shrink"


def test_the_reference_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    make_reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_reference)
    for path, text in make_reference.pages():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python docs/make_reference.py"
