"""What a run shows is not in the way of its work: with any stdout, stderr and terminal it trains and saves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.killing import metrics

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.training.recording.events import read_events

MakeConfig = Callable[..., TrainConfig]
STEPS = 20


@pytest.fixture
def command(make_config: MakeConfig, tmp_path: Path, plain_python: str) -> list[str]:
    """Trains with sample texts; the temperature makes them full of odd characters."""
    config = make_config(
        f"--max-steps={STEPS}",
        "--train.save_interval=10",
        "--sample.interval=1",
        "--sample.final=1",
        "--sample.max_new_tokens=30",
        "--sample.temperature=9.0",
        "--sample.top_k=null",
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(as_plain(config)))
    return [plain_python, "-m", "litmoe", "train", "--config", str(tmp_path / "run.yaml")]


def is_whole(out_dir: Path, steps: int = STEPS) -> None:
    """All steps are in the metrics, and the last one is saved."""
    assert [int(row["step"]) for row in metrics(out_dir)] == list(range(1, steps + 1))
    newest = checkpoint.newest(out_dir, pytest.fail)
    assert newest is not None and checkpoint.verify(newest)["step"] == steps


def test_an_encoding_that_lacks_the_characters_of_a_text(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.decode("cp1252")
    assert f"step {STEPS}/{STEPS} |" in printed and "train loss " in printed
    assert "\\ufffd" in printed  # half a character, of which a text of random tokens is full
    is_whole(tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_a_reader_that_has_seen_enough(command: list[str], tmp_path: Path) -> None:
    """As ``litmoe train | head -12``."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(12):
            assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(240) == 0
    assert "Traceback" not in said and "Exception ignored" not in said, said
    is_whole(tmp_path / "out")
    assert [event.kind for event in read_events(tmp_path / "out")].count("output_failed") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_the_output(command: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=240, check=False)
    said = done.stderr.decode().strip().splitlines()
    assert done.returncode == 0 and len(said) == 1 and "stdout cannot be written to" in said[0], said
    is_whole(tmp_path / "out")
    failed = [event for event in read_events(tmp_path / "out") if event.kind == "output_failed"]
    assert len(failed) == 1 and "No space left" in failed[0].message


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors as a POSIX shell does")
def test_closed_descriptors_do_not_become_files_of_the_run(command: list[str], tmp_path: Path) -> None:
    """The next file that is opened gets a closed one's number: what is printed on stderr would be in it."""
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command, "--max-steps=100000"]
    with subprocess.Popen(closed) as process:
        deadline = time.monotonic() + 240
        while not metrics(tmp_path / "out") and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)  # which says a line on stderr
        assert process.wait(240) == 128 + signal.SIGTERM
    steps = len(metrics(tmp_path / "out"))
    is_whole(tmp_path / "out", steps)
    for path in (tmp_path / "out").iterdir():
        if path.is_file():
            assert b"finishing this step" not in path.read_bytes(), path


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs Linux's terminals")
def test_a_closed_terminal_ends_a_run_that_has_saved(command: list[str], tmp_path: Path) -> None:
    """The terminal goes away with the bar and all: SIGHUP, and every write fails."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], [*command, "--max-steps=100000", "--progress"])
    seen, deadline = b"", time.monotonic() + 240
    while seen.count(b"saved ") < 1 and time.monotonic() < deadline:
        seen += os.read(terminal, 65536)
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 128 + signal.SIGHUP, seen[-2000:]
    steps = len(metrics(tmp_path / "out"))
    assert steps >= 10
    is_whole(tmp_path / "out", steps)
    assert read_events(tmp_path / "out")[-1].kind == "interrupted"
