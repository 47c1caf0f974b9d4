"""An output folder is never started over in silence, and a refused run leaves nothing behind."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litmoe.config import TrainConfig
from litmoe.errors import LitMoEError
from litmoe.training.loop import train
from litmoe.training.out_dir import checkpoint_to_resume, locked
from litmoe.training.recording.events import read_events
from litmoe.training.recording.metrics_file import read_metrics

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def everything(folder: Path) -> dict[str, bytes | str]:
    """All that is in a folder, links as what they point to."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def link(path: Path, to: Path) -> None:
    try:
        path.symlink_to(to)
    except OSError:
        pytest.skip("this system lets no user make links")


def only_final(out: Path) -> None:
    for folder in out.glob("step-*"):
        shutil.rmtree(folder)


def damage(out: Path) -> None:
    for folder in (*out.glob("step-*"), out / "final"):
        (folder / "lit_model.pth").write_bytes(b"short")


def no_checkpoints(out: Path) -> None:
    for folder in (*out.glob("step-*"), out / "final"):
        shutil.rmtree(folder)


def only_metrics(out: Path) -> None:
    for path in out.iterdir():
        if path.name != "metrics.csv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def damaged_final_alone(out: Path) -> None:
    only_final(out)
    (out / "final" / "trainer_state.pth").unlink()


def folder_for_a_manifest(out: Path) -> None:
    only_final(out)
    (out / "final" / "manifest.json").unlink()
    (out / "final" / "manifest.json").mkdir()


def link_to_nowhere(out: Path) -> None:
    only_final(out)
    shutil.rmtree(out / "final")
    link(out / "final", out / "nowhere")


def link_in_a_circle(out: Path) -> None:
    only_final(out)
    shutil.rmtree(out / "final")
    link(out / "final", out / "final")


def metrics_that_lead_nowhere(out: Path) -> None:
    no_checkpoints(out)
    (out / "metrics.csv").unlink()
    link(out / "metrics.csv", out / "nowhere")


def folder_for_metrics(out: Path) -> None:
    no_checkpoints(out)
    (out / "metrics.csv").unlink()
    (out / "metrics.csv").mkdir()


def other_metrics(out: Path) -> None:
    no_checkpoints(out)
    (out / "metrics.csv").write_text("date,weight\n2026-01-01,80\n")


SPOILED = [
    damage,
    damaged_final_alone,
    no_checkpoints,
    only_metrics,
    folder_for_a_manifest,
    link_to_nowhere,
    link_in_a_circle,
    metrics_that_lead_nowhere,
    folder_for_metrics,
    other_metrics,
]


@pytest.mark.parametrize("resume", ["auto", "false", "true"])
@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_what_looks_like_a_run_and_cannot_be_used_stops(
    make_config: MakeConfig, run_folder: Path, spoil: Callable[[Path], None], resume: str
) -> None:
    spoil(run_folder)
    before = everything(run_folder)
    with pytest.raises(LitMoEError) as error:
        train(make_config(f"--resume={resume}", out_dir=str(run_folder)))
    message = str(error.value)
    assert "\n" not in message and str(run_folder) in message
    after = everything(run_folder)
    after.pop(".lock", None)
    before.pop(".lock", None)
    assert after == before


def test_only_final_is_a_run_like_any_other(make_config: MakeConfig, run_folder: Path) -> None:
    only_final(run_folder)
    assert train(make_config("--resume=auto", "--max-steps=8", out_dir=str(run_folder))).steps == 8
    assert [int(row["step"]) for row in read_metrics(run_folder / "metrics.csv")] == list(range(1, 9))


def test_an_out_dir_that_is_a_file_or_leads_nowhere(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    link(tmp_path / "circle", tmp_path / "circle")
    for name in ("file", "circle"):
        with pytest.raises(LitMoEError, match=name):
            train(make_config("--resume=auto", out_dir=str(tmp_path / name)))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_ended_before_its_first_checkpoint_starts_over_and_says_so(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Its events tell that nothing was ever saved; a kill before the first checkpoint must not need a person."""
    out = tmp_path / "out"
    train(make_config("--resume=auto"))
    no_checkpoints(out)
    lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "events.jsonl").write_text("".join(line for line in lines if '"saved"' not in line))
    said: list[str] = []
    assert train(make_config("--resume=auto"), said.append).steps == 6
    assert any("ended at step 6, before its first checkpoint, and is started over" in line for line in said)
    assert [event.kind for event in read_events(out)].count("start") == 2


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """A temporary folder that other users may enter; pytest's own they may not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(task: Callable[[], object]) -> str:
    """What a task says in a process without the rights of root: the result or the error, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            text = f"returned {task()}"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has other permissions")
@pytest.mark.parametrize("name", [".", "final", "final/manifest.json", "final/lit_model.pth", "metrics.csv"])
def test_without_permission_to_read_nothing_is_started_over(
    make_config: MakeConfig, finished: Path, readable_folder: Path, name: str
) -> None:
    out = Path(shutil.copytree(finished, readable_folder / "out"))
    only_final(out)
    if name == "metrics.csv":
        no_checkpoints(out)
    for path in (out, *out.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (out / name).chmod(0)
    config = make_config("--resume=auto", out_dir=str(out))
    outcome = as_nobody(lambda: checkpoint_to_resume(config))
    assert "Permission denied" in outcome and str(out) in outcome and "Error: " in outcome, outcome


# What a refused run leaves


def test_a_refused_run_leaves_neither_lock_nor_folders(make_config: MakeConfig, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "out"
    with pytest.raises(LitMoEError):
        train(make_config("--tokenizer_dir=nowhere", out_dir=str(deep)))
    assert not (tmp_path / "a").exists()
    deep.mkdir(parents=True)
    (deep / "mine.txt").write_text("mine")
    with pytest.raises(LitMoEError):
        train(make_config("--tokenizer_dir=nowhere", out_dir=str(deep)))
    assert everything(tmp_path / "a") == {"b": "folder", "b/out": "folder", "b/out/mine.txt": b"mine"}


def test_a_lock_that_was_there_stays(tmp_path: Path) -> None:
    with locked(tmp_path / "out") as out_dir:
        out_dir.begun = True
    assert (tmp_path / "out" / ".lock").exists()
    with locked(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / ".lock").exists()


def test_one_run_at_a_time_also_while_the_first_is_still_refused(tmp_path: Path) -> None:
    """The lock file goes only while it is held: nobody can hold one that is no longer there."""
    with locked(tmp_path / "out"):
        with pytest.raises(LitMoEError, match="another run is writing there"), locked(tmp_path / "out"):
            pytest.fail("two at once")
        assert (tmp_path / "out" / ".lock").exists()
    assert not (tmp_path / "out").exists()
    with locked(tmp_path / "out"):
        pass
