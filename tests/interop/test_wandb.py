"""Weights & Biases without a network: what was saved is read back, what is fetched is checked."""

import csv
import json
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litmoe.cli.main import run as run_command
from litmoe.cli.wandb_dataset import WANDB_DATASET
from litmoe.config import PrepareConfig, TrainConfig
from litmoe.data.prepare import prepare
from litmoe.data.token_store import TokenStore
from litmoe.errors import ConfigError, LitMoEError
from litmoe.training.loop import train
from litmoe.wandb import datasets as wandb_artifacts
from litmoe.wandb.bundle import bundle_of, check_bundle, inside
from litmoe.wandb.datasets import fetch_dataset, point_to, upload_dataset, upload_wanted
from litmoe.wandb.names import check_aliases, check_artifact, check_project, parse_reference
from litmoe.wandb.run import (
    SampleTable,
    log_checkpoint,
    model_artifact_name,
    record_dataset,
    wandb_run,
)

wandb = pytest.importorskip("wandb", reason="wandb is not installed (extra: wandb)")


_BLOCK, _HEADER = 32768, struct.Struct("<IHB")  # LevelDB's log: checksum, length, kind
_FULL, _FIRST, _LAST = 1, 2, 4


def records(folder: Path) -> list[Any]:
    """The records of the only run below ``folder``, as W&B's own protocol messages.

    W&B's service writes them, and on a busy machine may still do so when the run has ended for its caller.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("**/run-*.wandb")
    found: list[Any] = []
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = [wandb_internal_pb2.Record.FromString(data) for data in _log(path.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            break
        time.sleep(0.1)
    return found


def _log(data: bytes) -> Iterator[bytes]:
    position, parts = 7, b""  # after the magic number
    while position + _HEADER.size <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER.size:  # the rest of a block is padding
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        part = data[position : position + length]
        position += length
        if kind in (_FULL, _FIRST):
            parts = b""
        parts += part
        if kind in (_FULL, _LAST):
            yield parts


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_LOG_DATASET", "WANDB_RUN_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    (tmp_path / "wandb").mkdir()
    wandb.teardown()  # it reads the environment once in a process
    yield
    wandb.teardown()


def artifacts(folder: Path) -> list[Any]:
    return [r.artifact for r in records(folder) if r.WhichOneof("record_type") == "artifact"]


def saved_files_to(artifact: Any, folder: Path) -> None:
    """The files that an offline run would upload, as they would be downloaded."""
    for entry in artifact.manifest.contents:
        (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.local_path, folder / entry.path)


def test_every_file_is_in_the_artifact(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "stories")
    lines: list[str] = []
    fingerprint = upload_dataset(corpus, corpus / "tokenizer", "dataset-test", ["small"], lines.append)
    (artifact,) = artifacts(tmp_path / "wandb")
    assert (artifact.name, artifact.type, artifact.project) == ("dataset-test", "dataset", "stories")
    assert set(artifact.aliases) == {"latest", "small"}
    sent = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    expected = {
        path.relative_to(corpus).as_posix(): path
        for path in corpus.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert set(sent) == {*expected, "dataset.json"}
    assert all(sent[name].read_bytes() == path.read_bytes() for name, path in expected.items())
    metadata = json.loads(artifact.metadata)
    store = TokenStore.open(corpus / "train" / "train")
    assert metadata["fingerprint"] == fingerprint
    assert metadata["train"]["tokens"] == store.n_tokens and metadata["vocab_size"] == 512
    assert "wandb sync" in lines[0] and "dataset-test" in lines[0]


def test_the_script_uploads_without_tokenizing(corpus: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("tokens.bin")}
    words = [f"--data-dir={corpus}", f"--tokenizer-dir={corpus / 'tokenizer'}"]
    words += ["--wandb-artifact", "dataset-custom_text", "--alias", "one", "two"]
    script = Path(__file__).parents[2] / "wandb_dataset.py"
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("saved dataset-custom_text offline (")
    (artifact,) = artifacts(tmp_path / "wandb")
    assert artifact.name == "dataset-custom_text" and set(artifact.aliases) == {"latest", "one", "two"}
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("tokens.bin")}


def test_a_split_by_hash_is_a_bundle_too(tmp_path: Path) -> None:
    """Text of one's own without validation text: the validation store is cut from the training text."""
    (tmp_path / "data" / "train").mkdir(parents=True)
    text = "<|endoftext|>".join(f"A story of number {n} and its friends." for n in range(100))
    (tmp_path / "data" / "train" / "a.txt").write_text(text)
    settings = PrepareConfig(
        data_dir=tmp_path / "data",
        tokenizer="train",
        vocab_size=300,
        tokenizer_dir=tmp_path / "tokenizer",
        val_fraction=0.3,
        progress=False,
    )
    prepare(settings, say=lambda _: None)
    bundle = bundle_of(tmp_path / "data", tmp_path / "tokenizer")
    assert "train/a.txt" in bundle.files and "val/val/tokens.bin" in bundle.files
    (tmp_path / "data" / "train" / "a.txt").write_text(text + "<|endoftext|>More.")
    with pytest.raises(LitMoEError, match=r"out of date \(a.txt changed\): run litmoe prepare"):
        bundle_of(tmp_path / "data", tmp_path / "tokenizer")


def test_a_wrong_or_missing_data_set_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="run litmoe prepare"):
        upload_dataset(tmp_path, corpus / "tokenizer", "d", say=lambda _: None)
    other = tmp_path / "tokenizer"
    shutil.copytree(corpus / "tokenizer", other)
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    with pytest.raises(LitMoEError, match="the tokenizer changed"):
        upload_dataset(corpus, other, "d", say=lambda _: None)


class Server:
    """W&B's answers, from what an offline run has saved."""

    def __init__(self, artifact: Any) -> None:
        self.artifact_record = artifact
        self.metadata = json.loads(artifact.metadata)
        self.version, self.name = "v3", f"{artifact.name}:v3"
        entries = {entry.path: SimpleNamespace(ref=None) for entry in artifact.manifest.contents}
        self.manifest = SimpleNamespace(entries=entries)
        self.downloads = 0
        self.asked: list[str] = []

    def artifact(self, reference: str, type: str) -> "Server":
        self.asked.append(reference)
        return self

    def download(self, root: str, skip_cache: bool) -> None:
        self.downloads += 1
        saved_files_to(self.artifact_record, Path(root))


@pytest.fixture
def server(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    upload_dataset(corpus, corpus / "tokenizer", "dataset-test", say=lambda _: None)
    (artifact,) = artifacts(tmp_path / "wandb")
    answers = Server(artifact)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setattr(wandb, "Api", lambda: answers)
    return answers


def test_a_run_trains_on_a_fetched_data_set(
    server: Server, make_config: Callable[..., TrainConfig], corpus: Path, tmp_path: Path
) -> None:
    """Downloaded once, checked every time, nothing tokenized again: the same run as on the original."""
    dataset = fetch_dataset("stories/dataset-test:latest", tmp_path / "artifacts", lambda _: None)
    assert server.asked == ["team/stories/dataset-test:latest"]
    assert dataset.artifact == "team/stories/dataset-test:v3"
    assert dataset.data_dir == tmp_path / "artifacts" / "team" / "stories" / "dataset-test-v3"
    stores = {path: path.stat().st_mtime_ns for path in dataset.data_dir.rglob("tokens.bin")}
    config = make_config(out_dir=str(tmp_path / "fetched"))
    first = train(point_to(config, dataset))
    assert first.val_loss == train(make_config(out_dir=str(tmp_path / "original"))).val_loss
    assert stores == {path: path.stat().st_mtime_ns for path in dataset.data_dir.rglob("tokens.bin")}
    again = fetch_dataset("team/stories/dataset-test", tmp_path / "artifacts", lambda _: None)
    assert again == dataset and server.downloads == 1


def test_a_version_that_is_here_needs_no_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_dataset("stories/dataset-test:v3", tmp_path / "artifacts", lambda _: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    fetch_dataset("stories/dataset-test:v3", tmp_path / "artifacts", lambda _: None)
    with pytest.raises(LitMoEError, match="must be fetched from W&B's server, and WANDB_MODE is offline"):
        fetch_dataset("stories/dataset-test:latest", tmp_path / "artifacts", lambda _: None)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "C:/evil.txt", "a/..\\..\\evil", "\\evil", ""])
def test_paths_stay_inside(server: Server, tmp_path: Path, name: str) -> None:
    server.manifest.entries[name] = SimpleNamespace(ref=None)
    with pytest.raises(LitMoEError, match="leads out of the target folder"):
        fetch_dataset("stories/dataset-test", tmp_path / "artifacts", lambda _: None)
    assert server.downloads == 0
    with pytest.raises(LitMoEError):
        inside(name)


def test_references_are_refused(server: Server, tmp_path: Path) -> None:
    server.manifest.entries["a"] = SimpleNamespace(ref="https://elsewhere/a")
    with pytest.raises(LitMoEError, match="is a reference to https://elsewhere/a"):
        fetch_dataset("stories/dataset-test", tmp_path / "artifacts", lambda _: None)


def test_what_does_not_match_its_fingerprint_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(message: str, change: Callable[[Path], Any]) -> None:
        def download(root: str, skip_cache: bool) -> None:
            saved_files_to(server.artifact_record, Path(root))
            change(Path(root))

        monkeypatch.setattr(server, "download", download)
        with pytest.raises(LitMoEError, match=message):
            fetch_dataset("stories/dataset-test", tmp_path / "artifacts", lambda _: None)
        assert not list(tmp_path.glob("artifacts/**/tokens.bin")), "something was left"

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[10] ^= 1
        path.write_bytes(data)

    refuses(r"tokens\.bin is not the file that was sent", lambda r: flip(r / "train/train/tokens.bin"))
    refuses(r"store\.json is not the file", lambda r: (r / "val/val/store.json").write_text("{}"))
    refuses(r"corpus\.json is missing", lambda r: (r / "corpus.json").unlink())
    refuses(r"evil\.pkl is not a file of this data set", lambda r: (r / "evil.pkl").write_bytes(b"x"))
    refuses("not a data set of litmoe", lambda r: (r / "dataset.json").unlink())
    server.metadata["fingerprint"] = "0" * 64
    refuses("the fingerprint does not match", lambda r: None)


def test_a_bundle_that_lists_a_way_out_is_refused(server: Server, tmp_path: Path) -> None:
    saved_files_to(server.artifact_record, tmp_path / "bundle")
    listing = json.loads((tmp_path / "bundle" / "dataset.json").read_text())
    listing["files"]["../outside"] = {"size": 0, "sha256": ""}
    (tmp_path / "bundle" / "dataset.json").write_text(json.dumps(listing))
    with pytest.raises(LitMoEError, match="leads out of the target folder"):
        check_bundle(tmp_path / "bundle")


def test_the_logger_tells_all_of_a_run(trained: Path, tmp_path: Path) -> None:
    """Configuration, data set, texts as a table, checkpoints as Artifacts: read back from the offline run."""
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(project="stories", name="a", save_dir=str(tmp_path / "wandb"))
    run = wandb_run(logger)
    assert run is not None and wandb_run(None) is None
    record_dataset(run, "team/stories/dataset-test:v3", "abc")
    samples = SampleTable(run)
    samples.add(1, ["Once upon"])
    samples.add(2, ["a time"])
    log_checkpoint(run, trained, model_artifact_name("MoE-test"), {"step": 40, "val_loss": 2.5}, best=True)
    log_checkpoint(run, trained, model_artifact_name("MoE-test"), {"step": 41, "val_loss": 2.6}, best=False)
    run.finish()
    wandb.teardown()
    found = artifacts(tmp_path / "wandb")
    models = [a for a in found if a.type == "model"]
    assert [set(a.aliases) for a in models] == [{"latest", "best"}, {"latest"}]
    assert models[0].name == "model-MoE-test" and json.loads(models[0].metadata)["step"] == 40
    assert {e.path for e in models[0].manifest.contents} == {path.name for path in trained.iterdir()}
    written = records(tmp_path / "wandb")
    config = {
        u.key or u.nested_key[0]: u.value_json
        for r in written
        for u in (*r.config.update, *r.run.config.update)
    }
    assert config["wandb_dataset"] == '"team/stories/dataset-test:v3"'
    tables = list((tmp_path / "wandb").glob("**/samples*.table.json"))
    last = max((json.loads(path.read_text())["data"] for path in tables), key=len)
    assert last == [[1, "Once upon"], [2, "a time"]]


def test_a_whole_run_is_in_wandb(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    """Every figure of metrics.csv, the texts and the checkpoints, of a run that the trainer made."""
    config = make_config(
        "--logger_name=wandb",
        "--wandb_checkpoints=true",
        "--sample.interval=3",
        "--sample.final=1",
        "--sample.max_new_tokens=5",
        "--checkpoint.asynchronous=false",
    )
    train(config)
    wandb.teardown()  # only then is all of it in the file
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records(tmp_path)
        if record.WhichOneof("record_type") == "history"
    ]
    with (config.out_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    logged = {entry["step"]: entry for entry in history if "train_loss" in entry}
    assert list(logged) == [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        for name, text in row.items():
            if text:
                assert float(logged[int(row["step"])][name]) == pytest.approx(float(text)), name
    assert sum("samples" in entry for entry in history) == 2
    models = [a for a in artifacts(tmp_path) if a.type == "model"]
    assert [json.loads(a.metadata)["step"] for a in models] == [2, 4, 6]  # the last one is `final` too
    assert "best" in models[-1].aliases


@pytest.mark.parametrize("name", ["data/set", "data set", "a:b", "", "..", "x" * 129, "naïve", "a\n"])
def test_names_are_checked_before_any_work(name: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="W&B artifact name"):
        upload_dataset(tmp_path / "not there", corpus / "tokenizer", name, say=lambda _: None)


def test_other_names(monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    check_artifact("dataset-custom_text.v1")
    for bad in ("a/b", "a:b", "", "x" * 129):
        with pytest.raises(LitMoEError, match="W&B alias"):
            check_aliases([bad])
        with pytest.raises(LitMoEError, match="W&B project name"):
            check_project(bad)
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(LitMoEError, match="W&B project name"):
        upload_dataset(corpus, corpus / "tokenizer", "d", say=lambda _: None)
    with pytest.raises(LitMoEError, match="W&B artifact name"):
        model_artifact_name("my/model")


def test_references() -> None:
    assert str(parse_reference("e/p/n:v1", {})) == "e/p/n:v1"
    assert str(parse_reference("p/n", {"WANDB_ENTITY": "me"})) == "me/p/n:latest"
    with pytest.raises(LitMoEError, match="set WANDB_ENTITY"):
        parse_reference("p/n:latest", {})
    for bad in ("n", "a/b/c/d", "e/p/n:a:b", "e//n", "e/p/n n"):
        with pytest.raises(LitMoEError, match="W&B"):
            parse_reference(bad, {"WANDB_ENTITY": "me"})


def test_the_environment_switches_the_upload_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert upload_wanted(True) and not upload_wanted(False)
    monkeypatch.setenv("WANDB_LOG_DATASET", "1")
    assert upload_wanted(False)
    monkeypatch.setenv("WANDB_LOG_DATASET", "0")
    assert not upload_wanted(False)
    monkeypatch.setenv("WANDB_LOG_DATASET", "on")
    with pytest.raises(ConfigError, match="WANDB_LOG_DATASET: expected 1 or 0, got 'on'"):
        upload_wanted(False)


def test_disabled_uploads_nothing(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    lines: list[str] = []
    upload_dataset(corpus, corpus / "tokenizer", "d", say=lines.append)
    assert "was not uploaded" in lines[0]


def test_no_server_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(
        wandb_artifacts, "_settings", lambda w: w.Settings(silent=True, console="off", init_timeout=2)
    )
    words = [f"--data-dir={corpus}", f"--tokenizer-dir={corpus / 'tokenizer'}"]
    assert run_command(WANDB_DATASET, words, "wandb_dataset.py") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("wandb_dataset.py: W&B: ") and "WANDB_MODE=offline" in message


def test_without_wandb_the_extra_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(LitMoEError, match=r"litmoe\[wandb\]"):
        upload_dataset(corpus, corpus / "tokenizer", "d", say=lambda _: None)
