"""The live view as a person sees it: on a screen, in any size, with any characters, through Ctrl-C."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.terminal import Terminal

from litmoe.config import TrainConfig, as_plain
from litmoe.training.recording.live import sparkline
from litmoe.training.recording.progress import Progress

# A run of 30 steps; layer 2 has a dead expert. Every step is drawn.
RUN = """
import sys, time
from litmoe.training.recording import live
live.SECONDS_BETWEEN = 0.0
view = live.LiveView(300)
for step in range(1, 31):
    row = {"step": 10 * step, "train_loss": 6 / step, "total_tokens": 10240 * step, "tokens_per_second": 3400.0}
    row |= {f"load_L{l}_E{e}": 0.0 if (l, e) == (2, 5) else 1 / 8 for l in range(3) for e in range(8)}
    if step % 5 == 0:
        row |= {"val_loss": 5 / step, "val_bits_per_byte": 1.25}
    view.step(row, 0.3)
    if step == 8:
        view.above("a line that stays", lambda line: print(line, flush=True))
    if step == 10:
        view.sample(100, "Once upon a time\\n\\x1b[31mthere was a \\u4f60\\u597d cat. " * 9)
        view.event("saved", "checkpoint step-00000100 saved")
        view.event("skip", "step 101 was skipped")
    if step == 15:
        print("half", end="", flush=True) if "--half" in sys.argv else None
    time.sleep(0.02)
view.close()
print("the end")
"""


def _seen(columns: int, rows: int, **environment: str) -> list[str]:
    terminal = Terminal(columns, rows)
    process = terminal.start([sys.executable, "-c", RUN], environment)
    assert terminal.read()
    assert process.wait(30) == 0
    assert b"\x1b[?25l" not in terminal.bytes  # a killed process would leave the cursor hidden
    return [line for line in terminal.text().splitlines() if line]


@pytest.mark.parametrize("columns", [120, 80, 38])
def test_one_view_stands_in_the_end(columns: int) -> None:
    lines = _seen(columns, 24)
    text = "\n".join(lines)
    assert text.count("a line that stays") == 1 and lines[0] == "a line that stays" and lines[-1] == "the end"
    assert len(re.findall(r"^step 300/300", text, re.M)) == text.count("tokens/s") == text.count("loss ") == 1
    assert "step 10/" not in text and max(map(len, lines)) <= columns
    assert [line.split()[1] for line in lines if line.startswith("experts")] == ["L0", "L1", "L2"]
    assert "✕" in next(line for line in lines if line.startswith("experts L2")) or columns < 50
    assert "step 100 writes: Once upon a time" in text and "step-00000100 saved" in text
    if columns >= 80:
        assert "validation 0.1667  1.2500 bits per byte" in text and "1 dead" in text and "step 101" in text


def test_a_low_terminal_loses_no_lines() -> None:
    lines = _seen(100, 8)
    assert lines[0] == "a line that stays" and lines[-1] == "the end"
    assert sum(line.startswith("step 300/300") for line in lines) == 1


def test_a_code_page_without_blocks() -> None:
    lines = _seen(100, 24, PYTHONIOENCODING="cp437:strict")
    assert sum(line.startswith("step 300/300") for line in lines) == 1
    lines = _seen(100, 24, PYTHONIOENCODING="ascii:strict")
    assert "x" in next(line for line in lines if line.startswith("experts L2"))
    assert "??" in next(line for line in lines if "writes" in line) and lines[-1] == "the end"


def test_resizing_leaves_nothing_behind() -> None:
    terminal = Terminal(110, 24)
    process = terminal.start([sys.executable, "-c", RUN])
    assert terminal.read("step 40/300")
    terminal.resize(50, 24)
    assert terminal.read("step 160/300")
    terminal.resize(90, 12)
    assert terminal.read() and process.wait(30) == 0
    on_screen = "\n".join(terminal.screen.display)
    assert on_screen.count("tokens/s") == 1 and on_screen.count("the end") == 1


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    progress = Progress(said.append)
    progress.begin(20, show=True)
    row = {
        "step": 10,
        "train_loss": 1.5,
        "total_tokens": 2e6,
        "tokens_per_second": 99.0,
        "learning_rate": 1e-3,
    }
    progress.step(row, 0.1, logged=False)
    progress.step(row, 0.1, logged=True)
    progress.sample(10, "a text")
    progress.event("saved", "a checkpoint")
    progress.close()
    assert said == [
        "step 10/20 | 2M tokens | loss 1.5000 | lr 1.00e-03 | 99 tok/s | left 0:00:01",
        "--- step 10 writes ---\na text\n---",
    ]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("option", ["--progress=true", "--progress=plain"])
def test_a_run_on_a_terminal_through_ctrl_c(
    option: str, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config("--max-steps=100000", "--eval.interval=1000000", "--train.save_interval=null")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(as_plain(config)), encoding="utf-8")
    terminal = Terminal(100, 30)
    command = [sys.executable, "-m", "litmoe", "train", "--config", str(tmp_path / "run.yaml"), option]
    process = terminal.start(command, {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"})
    live = option == "--progress=true"
    assert terminal.read("tokens/s" if live else "| left"), terminal.text()
    terminal.press("\x03")
    assert terminal.read(), terminal.text()
    assert process.wait(30) == 130
    text = terminal.text()
    assert "stopped by SIGINT" in text
    assert len(re.findall(r"^step [\d,]+/100,000 ", text, re.M)) == int(live), text
    assert (b"\x1b[2K" in terminal.bytes) == live


def test_sparklines() -> None:
    assert sparkline([1, 2, 3], 8) == "▁▅█"
    assert sparkline([3.0] * 50, 10) == "▁" * 10
    assert sparkline([float("nan"), 1, float("inf"), 0], 8) == "█▁"
    assert sparkline([], 8) == sparkline([1], 0) == ""
    assert sparkline(list(range(1000, 0, -1)), 8) == "█▇▆▅▄▃▂▁"
