"""The commands as a person types them, in a folder of their own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shutil import copytree

import pytest
import yaml
from support.small import MODEL

from litmoe.checkpoint import verify
from litmoe.cli import main as cli
from litmoe.cli.command import Command

ROOT = Path(__file__).parents[2]


def script(python: str, cwd: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(ROOT / name), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


SMALL = """
model_config: model.yaml
data: {class_path: litmoe.data.TextFiles, init_args: {train_data_path: own/train, val_data_path: own/val}}
tokenizer_dir: tokenizer
precision: 32-true
out_dir: runs
train: {global_batch_size: 4, micro_batch_size: 2, max_steps: 4, save_interval: 2}
eval: {interval: 2, max_iters: 4}
sample: {interval: 3, final: 2, max_new_tokens: 20}
"""


@pytest.mark.slow
def test_from_text_to_figures(tmp_path: Path, plain_python: str) -> None:
    """Own text, prepared, trained on, continued, generated from, evaluated, where no extra is installed."""
    run_script = partial(script, plain_python, tmp_path)
    text = tmp_path / "stories"
    text.mkdir()
    for number in range(12):
        (text / f"{number}.txt").write_text(f"Story {number}. " + "The cat sat on the mat. " * 30)
    words = ["--source", "stories", "--data-dir", "own", "--tokenizer", "train", "--vocab-size", "300"]
    out = done(run_script("prepare_data.py", *words, "--tokenizer-dir", "tokenizer", "--val-fraction", "0.3"))
    assert "train: " in out and "documents" in out
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(MODEL))
    (tmp_path / "small.yaml").write_text(SMALL)
    out = done(run_script("run_train.py", "--config", "small.yaml"))
    facts = ["parameters", "active per token", "GFLOP per token", "new run", "step 4/4", "text 2"]
    facts += ["train loss", "validation loss", "bits per byte", "tokens per second", "checkpoint       runs"]
    for fact in facts:
        assert fact in out, fact
    assert {path.name for path in (tmp_path / "runs").iterdir()} >= {
        "step-00000002",
        "step-00000004",
        "final",
        "metrics.csv",
    }
    verify(tmp_path / "runs" / "final")
    out = done(
        run_script("run_train.py", "--config", "small.yaml", "--resume", "runs/step-00000002", "--progress")
    )
    assert f"resumes from {Path('runs/step-00000002')} (step 2)" in out
    out = done(
        run_script("generate.py", "--checkpoint", "runs", "--prompt", "The cat", "--max-new-tokens", "8")
    )
    assert out.startswith("The cat")
    out = done(run_script("evaluate.py", "--checkpoint", "runs/final", "--json", "figures.json"))
    assert "bits per byte" in out and (tmp_path / "figures.json").is_file()


def test_litgpt_works_on_what_we_save(trained: Path, tmp_path: Path) -> None:
    """``litgpt generate`` on the folder as it is, and ``litgpt.LLM.load``."""
    words = ["generate", str(trained), "--prompt", "Once upon a time", "--max_new_tokens", "8"]
    code = "import sys; from litgpt.__main__ import main; sys.argv[0] = 'litgpt'; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Once upon a time" in result.stdout
    from litgpt import LLM

    copytree(trained, tmp_path / "copy")
    text = LLM.load(str(tmp_path / "copy")).generate("Once upon a time", max_new_tokens=8)
    assert isinstance(text, str) and text


def refused(capsys: pytest.CaptureFixture[str], command: Command, words: Sequence[str]) -> str:
    """The one line that a command says no with."""
    assert cli.run(command, words, "test") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if line.startswith("test: ")]
    assert len(lines) == 1
    return lines[0]


def test_mistakes_end_in_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder" / "final").mkdir(parents=True)
    (tmp_path / "typo.yaml").write_text("train: {max_tokns: 5}")
    cases = [
        (cli.COMMANDS["train"], ["--preset", "tiny", "--prepare.source", "[]"], "data"),
        (cli.COMMANDS["train"], ["--preset", "none"], "no preset"),
        (cli.COMMANDS["train"], ["--config", "none.yaml"], "no such file"),
        (cli.COMMANDS["train"], ["--config", "typo.yaml"], "did you mean train.max_tokens?"),
        (cli.COMMANDS["train"], ["--model-config", "none.yaml"], "no such file"),
        (cli.COMMANDS["train"], ["--config"], "expected one argument"),
        (cli.COMMANDS["prepare"], ["--source", "none"], "none"),
        (cli.COMMANDS["prepare"], ["--source", "empty"], "empty"),
        (cli.COMMANDS["prepare"], ["--source", "latin.txt", "--tokenizer", "train"], "UTF-8"),
        (cli.COMMANDS["prepare"], ["--source", "sample", "--tokenizer", "empty"], "empty"),
        (cli.COMMANDS["prepare"], ["--soruce", "sample"], "did you mean --source?"),
        (cli.COMMANDS["generate"], [], "train a model first"),
        (cli.COMMANDS["generate"], ["--checkpoint", "folder/final"], "no valid checkpoint"),
        (cli.COMMANDS["generate"], ["--max-new-tokens", "many"], "expected int"),
        (cli.COMMANDS["evaluate"], ["--checkpoint", "folder"], "no valid checkpoint"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for command, words, message in cases:
        assert message in refused(capsys, command, words), words
        assert not list(tmp_path.rglob("*.tmp*")) and not list(tmp_path.rglob("lit_model.pth"))
    assert [path for path in before if not path.exists()] == []


def test_the_console_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert cli.main([]) == 0
    assert cli.main(["trian"]) == 2
    captured = capsys.readouterr()
    assert "did you mean train?" in captured.err
    assert all(name in captured.out for name in ("prepare", "train", "generate", "evaluate"))
