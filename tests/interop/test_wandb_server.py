"""The real client of Weights & Biases against a server on this machine: data sets, rows, kills, and refusals."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from support.killing import Trainer
from support.wandb_server import ENTITY, WandbRun, WandbServer, serving

from litmoe import checkpoint
from litmoe.cli.main import run
from litmoe.cli.prepare import PREPARE
from litmoe.cli.train import TRAIN
from litmoe.cli.wandb_dataset import WANDB_DATASET
from litmoe.config import TrainConfig, as_plain
from litmoe.errors import LitMoEError
from litmoe.training.loop import train
from litmoe.wandb.datasets import fetch_dataset, upload_dataset
from litmoe.wandb.offline import next_step
from litmoe.wandb.run import ID_FILE

wandb = pytest.importorskip("wandb", reason="wandb is not installed (extra: wandb)")

MakeConfig = Callable[..., TrainConfig]
DATASET = f"{ENTITY}/stories/dataset-test"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_PROJECT", "stories")
    (tmp_path / "wandb").mkdir()
    with serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        wandb.teardown()  # it reads the environment once in a process
        yield server
        wandb.teardown()
    assert server.unknown == []


def rows_of(out_dir: Path) -> dict[int, dict[str, str]]:
    with (out_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["step"]): row for row in csv.DictReader(file)}


def check_rows(run: WandbRun, out_dir: Path, first: int = 1) -> None:
    """Every row of ``metrics.csv`` is a row of the run, once, in order, under its step."""
    rows = rows_of(out_dir)
    steps = [row["_step"] for row in run.history]
    assert steps == [row["step"] for row in run.history] == list(range(first, max(rows) + 1))
    for row in run.history:
        loss = float(rows[row["step"]]["train_loss"])
        assert row["train_loss"] == pytest.approx(loss, rel=1e-6), row["step"]


def only_run(server: WandbServer, out_dir: Path) -> WandbRun:
    identity = (out_dir / ID_FILE).read_text(encoding="utf-8").strip()
    return server.runs[f"stories/{identity}"]


def test_a_data_set_goes_up_and_comes_down(
    server: WandbServer,
    corpus: Path,
    make_config: MakeConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Uploaded, fetched by a run, nothing tokenized again: the same losses as on the original."""
    said: list[str] = []
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "train" / "notes.pdf").write_bytes(b"x" * 2000)
    upload_dataset(data, data / "tokenizer", "dataset-test", ["small"], said.append)
    assert said[0].startswith("not uploaded: ") and "notes.pdf" in said[0] and "2 kB" in said[0]
    (sent,) = (one for one in server.artifacts if one.type == "dataset")
    assert set(sent.aliases) == {"latest", "small"} and sent.committed
    files = server.files(sent)
    there = {p.relative_to(data).as_posix(): p.read_bytes() for p in data.rglob("*") if p.is_file()}
    expected = {name for name in there if not Path(name).name.startswith(".")} - {"train/notes.pdf"}
    assert set(files) == {*expected, "dataset.json"}
    assert all(files[name] == there[name] for name in expected)

    places = {"wandb_artifacts_dir": str(tmp_path / "artifacts"), "logger_name": "wandb"}
    capfd.readouterr()
    config = make_config(f"--wandb-dataset={DATASET}:small", out_dir=str(tmp_path / "fetched"), **places)
    losses = train(config)
    assert "files downloaded" not in capfd.readouterr().err  # stderr is no terminal
    assert losses.val_loss == train(make_config(out_dir=str(tmp_path / "original"))).val_loss
    assert only_run(server, tmp_path / "fetched").used == ["dataset-test:v0"]
    check_rows(only_run(server, tmp_path / "fetched"), tmp_path / "fetched")

    fetched = len(server.downloads)
    assert fetched >= len(files)
    dataset = fetch_dataset(f"{DATASET}:v0", tmp_path / "artifacts")
    assert len(server.downloads) == fetched and dataset.artifact == f"{DATASET}:v0"


def test_a_killed_run_stays_one_run(server: WandbServer, make_config: MakeConfig, tmp_path: Path) -> None:
    """What the server lacks, for wandb sends rows every 15 seconds, comes from metrics.csv."""
    out = tmp_path / "out"
    killed(make_config("--logger-name=wandb", "--max-steps=5000"), out)
    last = max(rows_of(out))
    train(make_config("--logger-name=wandb", f"--max-steps={last + 5}", "--resume=auto"))
    (run,) = server.runs.values()
    assert run.starts == 2 and run.exit_code == 0
    check_rows(run, out)
    assert run.config["optimizer"]["value"]["class_path"] == "AdamW"


def killed(config: TrainConfig, out: Path) -> None:
    """A run that was killed after some forty steps, right after a checkpoint or between two."""
    settings = out.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(as_plain(config)), encoding="utf-8")
    until = time.monotonic() + 120
    with Trainer() as trainer:
        trainer.start(settings)
        while not ((out / "metrics.csv").is_file() and max(rows_of(out), default=0) > 40):
            assert trainer.running() and time.monotonic() < until, settings.with_suffix(
                ".yaml.log"
            ).read_text()
            time.sleep(0.01)
        trainer.kill()
    assert checkpoint.newest(out, pytest.fail) is not None


def test_steps_that_the_server_has_are_not_sent_again(
    server: WandbServer, make_config: MakeConfig, tmp_path: Path
) -> None:
    """And of two runs in one working folder each continues itself, whichever was last."""
    wanted = [
        "--logger-name=wandb",
        "--max-steps=9",
        "--resume=auto",
        "--sample.interval=3",
        "--sample.final=1",
    ]
    wanted += ["--sample.max-new-tokens=3"]
    for name in "ab":
        train(make_config(*wanted, out_dir=str(tmp_path / name), seed=ord(name)))
    first = only_run(server, tmp_path / "a")
    assert len(server.runs) == 2 and len(first.history) == 9
    for name in ("final", "step-00000008", "step-00000006"):
        shutil.rmtree(tmp_path / "a" / name)
    said: list[str] = []
    train(make_config(*wanted, out_dir=str(tmp_path / "a"), seed=ord("a")), said.append)
    assert len(server.runs) == 2 and first.starts == 2
    assert any("continues; it has the rows up to step 9" in line for line in said)
    check_rows(first, tmp_path / "a")
    check_rows(only_run(server, tmp_path / "b"), tmp_path / "b")
    assert [row["_step"] for row in first.history if "samples" in row] == [3, 6, 9]


def test_offline_parts_fit_together(
    server: WandbServer, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "out"
    killed(make_config("--logger-name=wandb", "--max-steps=5000"), out)
    identity = (out / ID_FILE).read_text(encoding="utf-8").strip()
    held = next_step(tmp_path / "wandb", identity)
    last = max(rows_of(out))
    assert 0 <= held <= last + 1
    train(make_config("--logger-name=wandb", f"--max-steps={last + 5}", "--resume=auto"))
    wandb.teardown()
    assert next_step(tmp_path / "wandb", identity) == last + 6
    assert not server.runs
    parts = sorted((tmp_path / "wandb" / "wandb").glob("offline-run-*"))
    assert len(parts) == 2
    for part in parts:
        command = [str(Path(sys.executable).with_name("wandb")), "sync", str(part)]
        environment = {**os.environ, "WANDB_MODE": "online"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    check_rows(server.runs[f"stories/{identity}"], out)


WRONG = {
    "mode": ({"WANDB_MODE": "ofline"}, "WANDB_MODE ofline: no such mode of W&B; did you mean offline?"),
    "key": ({"WANDB_API_KEY": "1" * 40}, "check the network and wandb login"),
    "short key": ({"WANDB_API_KEY": "abc"}, "API key must have 40+ characters"),
    "server": ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, "no answer from http://127.0.0.1:9: "),
    "address": ({"WANDB_BASE_URL": "localhost:8080"}, "WANDB_BASE_URL localhost:8080: expected an address"),
    "project": ({"WANDB_PROJECT": "a/b"}, "W&B project name 'a/b'"),
    "entity": ({"WANDB_ENTITY": "a b"}, "W&B entity 'a b'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_found_before_any_work(
    server: WandbServer,
    corpus: Path,
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    """On every way in, in one line, and nothing is left behind."""
    environment, message = WRONG[wrong]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()
    settings = tmp_path / "run.yaml"
    settings.write_text(yaml.safe_dump(as_plain(make_config())), encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    data = [f"--data-dir={tmp_path / 'data'}", f"--tokenizer-dir={tmp_path / 'tokenizer'}"]
    fetched = [f"--wandb-dataset={DATASET}", f"--wandb-artifacts-dir={tmp_path / 'artifacts'}"]
    for command, args in (
        (TRAIN, [f"--config={settings}", "--logger-name=wandb"]),
        (TRAIN, [f"--config={settings}", *fetched]),
        (PREPARE, [*data, "--source=sample", "--log-to-wandb"]),
        (WANDB_DATASET, [f"--data-dir={corpus}", f"--tokenizer-dir={corpus / 'tokenizer'}"]),
    ):
        assert run(command, args, "litmoe") == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("wandb:")]
        assert len(lines) == 1 and message in lines[0], (command, lines)
        assert sorted(tmp_path.iterdir()) == before
    assert not server.runs and not server.artifacts


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_RESUME", "must", "WANDB_RESUME is set, but litmoe resumes W&B's run itself"),
        ("WANDB_RUN_ID", "a/b", "WANDB_RUN_ID: 'a/b' is not an id"),
        ("WANDB_RUN_ID", "other", "WANDB_RUN_ID is other, and the run in"),
    ],
)
def test_another_id_is_refused(
    server: WandbServer,
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    message: str,
) -> None:
    if value == "other":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ID_FILE).write_text("mine\n")
    monkeypatch.setenv(name, value)
    with pytest.raises(LitMoEError, match=message):
        train(make_config("--logger-name=wandb", "--resume=auto"))
    assert not server.runs and not (tmp_path / "out" / "metrics.csv").exists()


def test_an_open_run_of_somebody_else_is_left_alone(server: WandbServer, make_config: MakeConfig) -> None:
    other = wandb.init(project="stories", id="other")
    with pytest.raises(LitMoEError, match="run other is still open in this process"):
        train(make_config("--logger-name=wandb"))
    other.finish()
    assert not server.runs["stories/other"].history
    assert json.loads(server.runs["stories/other"].tail("wandb-history.jsonl")) == []
