"""The commands that show runs: what they print and write, and their one-line mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.runs import run_folder

from litmoe.cli.main import main
from litmoe.config import TrainConfig, as_plain


def test_a_run_ends_with_its_report(
    make_config: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "run.yaml"
    settings.write_text(yaml.safe_dump(as_plain(make_config("--sample.interval=3"))), encoding="utf-8")
    assert main(["train", "--config", str(settings), "--out-dir", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr()
    assert (
        f"report           {tmp_path / 'a' / 'report.html'}" in printed.out and "no report" not in printed.err
    )
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "MoE-test" in page and "Step 3" in page and (tmp_path / "a" / "run.json").is_file()
    assert (
        main(["train", "--config", str(settings), "--out-dir", str(tmp_path / "b"), "--report", "false"]) == 0
    )
    assert not (tmp_path / "b" / "report.html").exists()
    capsys.readouterr()

    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run ") and [line.split()[0] for line in lines[2:]] == ["a", "b"]
    assert "finished" in lines[2] and "MoE-test" in lines[2]
    assert main(["runs", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "no settings differ" in capsys.readouterr().out


def test_two_runs_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows, rate in (("a", 120, 0.001), ("b", 60, 0.002)):
        run_folder(
            tmp_path / name, rows=rows, about={"settings": {"optimizer": {"lr": rate}, "out_dir": name}}
        )
    assert main(["runs", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert "at equal tokens: 614 k" in text and "optimizer.lr" in text and "out_dir" not in text
    expected = f"{1.1 + 5 * 0.93**60:.4f}"
    assert (
        next(line.split()[-2:] for line in text.splitlines() if line.startswith("val loss")) == [expected] * 2
    )
    out, figures = tmp_path / "both.html", tmp_path / "both.json"
    arguments = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out), "--json", str(figures)]
    assert main(["report", *arguments]) == 0
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert [run["name"] for run in found["runs"]] == ["a", "b"] and out.is_file()
    assert found["comparison"]["settings"] == [{"name": "optimizer.lr", "values": ["0.001", "0.002"]}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "name the folder of a run"),
        (["report", "nowhere"], "nowhere: no such folder"),
        (["runs", "nowhere"], "nowhere: no such folder"),
        (["inspect"], "name a checkpoint"),
        (["inspect", "nowhere", "--max-tokens", "0"], "--max-tokens must be 1 or more, got 0"),
        (["inspect", "nowhere"], "nowhere: no such checkpoint folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_inspect_writes_page_and_json(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "routing.html", tmp_path / "routing.json"
    quick = ["--shuffles", "0", "--knockout-windows", "0", "--accelerator", "cpu"]
    assert main(["inspect", str(trained), "--out", str(page), "--json", str(figures), *quick]) == 0
    assert f"wrote {page}" in capsys.readouterr().out
    assert json.loads(figures.read_text(encoding="utf-8"))["schema"] == "litmoe-routing/1"
