"""Where figures and texts go, and what happens where they cannot."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.loggers.logger import Logger

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.errors import DiskFullError, LitMoEError, RunInterrupted
from litmoe.training.loop import train
from litmoe.training.recording.dead_experts import STEPS, DeadExperts
from litmoe.training.recording.events import EventLog, read_events
from litmoe.training.recording.metrics_file import MetricsFile, read_metrics, read_rows

MakeConfig = Callable[..., TrainConfig]


def kinds(out_dir: Path) -> list[str]:
    return [event.kind for event in read_events(out_dir)]


# Loggers


class Failing(Logger):
    """A logger whose server goes away."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, 0
        self.experiment = None

    name = version = "failing"

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.calls += 1
        if self.at == f"step {step}":
            raise ConnectionError("the server\nis gone")

    def finalize(self, status: str) -> None:
        self.calls += 1
        if self.at == "end":
            raise TimeoutError


@pytest.mark.parametrize(("at", "calls", "event_step"), [("step 3", 3, 3), ("end", 7, 6)])
def test_a_logger_that_fails_is_an_event_and_training_goes_on(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, at: str, calls: int, event_step: int
) -> None:
    logger, said = Failing(at), list[str]()
    monkeypatch.setattr("litmoe.training.recording.recorder.make_logger", lambda *_, **__: logger)
    config = make_config()
    assert train(config, said.append).steps == 6
    assert logger.calls == calls
    assert len(read_metrics(config.out_dir / "metrics.csv")) == 6
    (event,) = [event for event in read_events(config.out_dir) if event.kind == "logger_failed"]
    assert event.step == event_step and event.message in said and "\n" not in event.message
    assert "metrics.csv has every row" in event.message


def test_a_logger_that_does_not_start_stops_the_run_before_any_work(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Logger:
        raise PermissionError(13, "Permission denied", "/logs")

    monkeypatch.setattr("litmoe.training.recording.loggers.find_spec", lambda _: True)
    monkeypatch.setattr("litgpt.utils.choose_logger", refuse)
    config = make_config("--logger_name=tensorboard")
    with pytest.raises(LitMoEError, match=r"logger_name tensorboard: it does not start: .*Permission denied"):
        train(config)
    assert not config.out_dir.exists()


# metrics.csv


def rows_of(path: Path) -> list[str]:
    return [row["step"] for row in read_rows(path)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many kilobytes, where that is permitted; skips elsewhere."""
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        args = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if sys.platform != "linux" or shutil.which("mount") is None:
            pytest.skip("small file systems are made with Linux's mount")
        if subprocess.run(args, capture_output=True, check=False).returncode:
            pytest.skip("mounting a file system is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def fill(folder: Path) -> Path:
    """Take all room that a disk has left."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return path


def test_rows_wait_for_room_and_none_is_half_there(disk: Callable[[int], Path]) -> None:
    folder = disk(64)
    path = folder / "metrics.csv"
    file = MetricsFile(path, ["step", "train_loss"], resume_step=None)
    file.write({"step": 1, "train_loss": 0.123456789})
    filling = fill(folder)
    failed = []
    for step in range(2, 400):
        try:
            file.write({"step": step, "train_loss": 0.123456789}, to_disk=False)
        except DiskFullError as error:
            assert str(path) in str(error)
            failed.append(step)
        assert path.read_bytes().endswith(b"\n")  # whole rows only
    assert failed and file.n_bytes_waiting
    filling.unlink()
    file.write({"step": 400, "train_loss": 0.5})
    assert not file.n_bytes_waiting
    file.close()
    assert rows_of(path) == [str(step) for step in range(1, 401)]


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_full_disk_at_a_row_of_metrics(
    make_config: MakeConfig,
    disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    policy: str,
) -> None:
    """It fills up after a checkpoint and, where the run goes on, has room again before the last step."""
    folder, filled = disk(20_000), list[Path]()
    config = make_config(
        f"--checkpoint.on_full_disk={policy}",
        "--checkpoint.asynchronous=false",
        "--max-steps=40",
        f"--train.save_interval={20 if policy == 'stop' else 2}",
        out_dir=str(folder / "out"),
    )
    real = MetricsFile.write

    def write(file: MetricsFile, row: Mapping[str, Any], to_disk: bool = True) -> None:
        if row["step"] == (21 if policy == "stop" else 3):
            filled.append(fill(folder))
        if row["step"] == 37:
            filled[0].unlink()
        real(file, row, to_disk)

    monkeypatch.setattr(MetricsFile, "write", write)
    said: list[str] = []
    if policy == "stop":
        with pytest.raises(DiskFullError, match=r"metrics.csv: cannot be written") as error:
            train(config, said.append)
        assert "\n" not in str(error.value)
        filled[0].unlink()
        newest = checkpoint.newest(config.out_dir, pytest.fail)
        assert newest is not None
        assert checkpoint.verify(newest)["step"] == 20
        logged = rows_of(config.out_dir / "metrics.csv")
        assert logged == [str(step) for step in range(1, len(logged) + 1)] and 20 <= len(logged) < 40
        return
    assert train(config, said.append).steps == 40
    assert rows_of(config.out_dir / "metrics.csv") == [str(step) for step in range(1, 41)]
    assert kinds(config.out_dir).count("metrics_delayed") == 1
    skipped = [event.step for event in read_events(config.out_dir) if event.kind == "checkpoint_skipped"]
    assert skipped and skipped[-1] == 36
    assert sum("rows wait in memory" in line for line in said) == 1


def test_a_request_to_end_on_a_full_disk_does_not_claim_to_have_saved(
    make_config: MakeConfig, disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = disk(20_000)
    config = make_config("--checkpoint.on_full_disk=continue", "--max-steps=40", out_dir=str(folder / "out"))
    real = MetricsFile.write

    def write(file: MetricsFile, row: Mapping[str, Any], to_disk: bool = True) -> None:
        if row["step"] == 5:
            fill(folder)
            signal.raise_signal(signal.SIGTERM)
        real(file, row, to_disk)

    monkeypatch.setattr(MetricsFile, "write", write)
    with pytest.raises(
        RunInterrupted, match=r"not saved, for want of room on the disk; --resume auto"
    ) as ended:
        train(config)
    assert ended.value.exit_code == 128 + signal.SIGTERM and "; saved " not in str(ended.value)


def test_a_row_cut_short_is_no_row(tmp_path: Path) -> None:
    """Half of the row of step 12 would otherwise be a second row of step 1."""
    path = tmp_path / "metrics.csv"
    path.write_text("step,train_loss\n1,0.5\n2,0.25\n1", encoding="utf-8")
    assert rows_of(path) == ["1", "2"]
    file = MetricsFile(path, ["step", "train_loss"], resume_step=2)
    file.write({"step": 3, "train_loss": 1.0})
    file.close()
    assert rows_of(path) == ["1", "2", "3"]


def test_the_validation_before_the_first_step_is_a_row(make_config: MakeConfig) -> None:
    config = make_config("--eval.initial_validation=true", "--max-steps=2")
    train(config)
    first, second, _ = read_metrics(config.out_dir / "metrics.csv")
    assert first["step"] == "0" and float(first["val_loss"]) > 5 and first["train_loss"] == ""
    assert float(first["val_bits_per_byte"]) > 1 and second["step"] == "1"
    train(make_config("--resume=auto", "--eval.initial_validation=true", "--max-steps=3"))
    assert rows_of(config.out_dir / "metrics.csv") == ["0", "1", "2", "3"]


# Texts


def texts_by_step(said: list[str]) -> dict[int, str]:
    found = {}
    for line in said:
        head, _, text = line.partition("\n")
        if head.endswith(" writes ---"):
            found[int(head.split()[2])] = text.removesuffix("\n---")
    return found


def test_prompts_take_turns_and_the_last_step_writes_too(make_config: MakeConfig) -> None:
    prompts = ["One", "Two", "Three"]
    sample = {"interval": 2, "prompts": prompts, "max_new_tokens": 3}
    said: list[str] = []
    train(make_config("--max-steps=4", sample=sample), said.append)
    train(make_config("--resume=auto", "--max-steps=8", sample=sample), said.append)
    texts = texts_by_step(said)
    assert list(texts) == [2, 4, 6, 8]
    for step, prompt in zip(texts, ["One", "Two", "Three", "One"], strict=True):
        assert texts[step].startswith(prompt)


def test_texts_change_no_bit_of_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    sample = {"interval": 1, "final": 2, "prompts": ["", "The"], "max_new_tokens": 5}
    for name, more in (("with", {"sample": sample}), ("without", {})):
        train(make_config(out_dir=str(tmp_path / name), **more))
    first, second = (checkpoint.load_model(tmp_path / name / "final") for name in ("with", "without"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_text_that_cannot_be_written_costs_no_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("litmoe.training.recording.samples.decode_together", broken)
    config, said = make_config("--sample.interval=2", "--sample.final=1"), list[str]()
    assert train(config, said.append).texts == []
    assert kinds(config.out_dir).count("sample_failed") == 1
    assert checkpoint.verify(config.out_dir / "final")["step"] == 6


def test_a_context_that_ends_a_text_and_a_prompt_that_is_too_long_are_said(make_config: MakeConfig) -> None:
    said: list[str] = []
    sample = {"interval": 6, "prompts": ["the dog " * 100], "max_new_tokens": 50, "temperature": 9.0}
    train(make_config(sample=sample), said.append)
    assert any("sample.prompts[0] has" in line and "only its first 63" in line for line in said)
    assert any("sample texts end where the context of 64 tokens does" in line for line in said)


# Experts


def counts(dead: int, total: int = 8, each: int = 10) -> torch.Tensor:
    return torch.tensor([[0] * dead + [each] * (total - dead)] * 2)


def test_dead_experts_are_said_when_there_are_more() -> None:
    said: list[str] = []
    log = EventLog(said.append)
    watch = DeadExperts(log)
    for dead in (0, 3, 3, 5, 1, 2):
        for _ in range(STEPS):
            watch.add(counts(dead), last=False)
    told = [line.split(" experts got no token")[0] for line in said]
    assert told == ["6 of 16", "10 of 16", "4 of 16"]
    assert "(3 in layer 0, 3 in layer 1)" in said[0] and f"last {STEPS} steps" in said[0]


def test_an_expert_that_rests_for_a_step_is_not_dead_and_a_small_batch_says_nothing() -> None:
    said: list[str] = []
    watch = DeadExperts(EventLog(said.append))
    for step in range(STEPS):
        watch.add(counts(3) if step else counts(0), last=False)
    watch.add(counts(3, each=1), last=True)
    watch.add(torch.zeros(0, 8, dtype=torch.long), last=True)  # a dense model
    assert not said


def test_a_run_says_at_its_end_which_experts_are_dead(make_config: MakeConfig) -> None:
    said: list[str] = []
    config = make_config("--moe.balance=none", "--model_config.n_expert_per_token=1", "--max-steps=60")

    class Spoiled(torch.optim.SGD):
        """Turns the router so that one expert gets all tokens."""

        def step(self, closure: object = None) -> None:  # type: ignore[override]
            for parameter in (p for group in self.param_groups for p in group["params"]):
                if parameter.shape == (4, 32):  # the routers
                    parameter.data.zero_()

    sys.modules["spoiled"] = sys.modules[__name__]
    globals()["Spoiled"] = Spoiled
    config.optimizer.class_path, config.optimizer.init_args = "spoiled.Spoiled", {"lr": 0.003}
    train(config, said.append)
    (line,) = [line for line in said if "experts got no token" in line]
    assert line.startswith("6 of 8 experts got no token in the last 10 steps (3 in layer 0, 3 in layer 1)")
