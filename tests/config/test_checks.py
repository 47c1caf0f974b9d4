"""Settings that cannot be, or cannot mean what they say, are refused or said where that is decided."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from litmoe.cli.main import main
from litmoe.config.checks import check
from litmoe.config.load import load_train_config
from litmoe.errors import ConfigError


def tiny(*args: str) -> Any:
    return load_train_config(preset="tiny", overrides=args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seed=4294967296"], "seed must be at most 4,294,967,295"),
        (["--faults.spike-factor=1"], "faults.spike_factor must be greater than 1"),
        (["--tokenizer-dir=null"], "sample.interval has no effect here: tokenizer_dir is null"),
        (["--tokenizer-dir=null", "--sample.interval=null"], "sample.final has no effect here"),
    ],
)
def test_refused(args: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(tiny(*args))


@pytest.mark.parametrize(
    "args",
    [
        ["--max-seq-length", "999"],
        ["--memory.recompute", "experts", "--model-config.mlp-class-name", "LLaMAMLP"],
        ["--optimizer", "Adamm"],
        ["--optimizer.init-args.lr", "1e-9"],
        ["--optimizer.init-args.betas", "[2, 3]"],
        ["--optimizer.init-args.no", "1"],
        ["--data", "Nothing"],
        ["--max-tokens", "5"],
        ["--model-config.n-head", "7"],
        ["--model-config.n-expert", "0"],
        ["--initial-checkpoint", "nowhere", "--resume", "false"],
        ["--wandb-dataset", "::"],
        ["--moe.balance", "none", "--moe.switch-coefficient", "1"],
        ["--model-config", "no.yaml"],
        ["--micro-batch-size", "3"],
    ],
    ids=lambda args: args[0] + "=" + args[1],
)
def test_print_config_refuses_what_train_refuses(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same line; and before any text is prepared or any file is written."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for extra in ([], ["--print-config"]):
        assert main(["train", "--preset", "tiny", *args, *extra]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        lines.append(printed.err)
    assert lines[0] == lines[1] and lines[0].count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_printed_is_what_is_trained(tmp_path: Path) -> None:
    """As another process prints it, in an encoding without any of its letters."""
    args = ["--sample.prompts", "042", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "yes", "--log.run", "1e3"]
    command = [sys.executable, "-m", "litmoe", "train", "--preset", "tiny", "--logger-name", "wandb", *args]
    done = subprocess.run([*command, "--print-config"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "run.yaml").write_bytes(done.stdout)
    assert load_train_config(tmp_path / "run.yaml") == tiny("--logger-name=wandb", *args)
    assert yaml.safe_load(done.stdout)["sample"]["prompts"] == ["042", "café", "yes"]
