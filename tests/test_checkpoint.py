import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from litmoe import checkpoint
from litmoe.errors import LitMoEError


def contents(step: int, size: int = 1000) -> checkpoint.Contents:
    return checkpoint.Contents(
        step=step,
        model={"w": torch.full((size,), float(step))},
        trainer={"state": {"step": step}},
        model_config={"n_layer": 1},
        settings={"seed": 1},
        tokenizer_dir=None,
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = checkpoint.step_folder(tmp_path, 7)
    checkpoint.save(folder, contents(7))
    assert folder.name == "step-00000007"
    assert checkpoint.verify(folder)["step"] == 7
    assert torch.equal(checkpoint.load_model(folder)["w"], torch.full((1000,), 7.0))
    assert checkpoint.load_trainer(folder)["state"]["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_saving_again_replaces_and_a_copy_is_equal(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "final", contents(1))
    checkpoint.save(tmp_path / "final", contents(2))
    assert checkpoint.verify(tmp_path / "final")["step"] == 2
    checkpoint.copy(tmp_path / "final", tmp_path / "step-00000002")
    assert checkpoint.verify(tmp_path / "step-00000002")["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final", "step-00000002"]


DAMAGES = {
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "has no manifest"),
    "manifest cut short": (lambda d: (d / "manifest.json").write_text("{"), "manifest.json is damaged"),
    "manifest of another kind": (
        lambda d: (d / "manifest.json").write_text("[]"),
        "manifest.json is damaged",
    ),
    "file missing": (lambda d: (d / "lit_model.pth").unlink(), "lit_model.pth is missing"),
    "file cut short": (
        lambda d: os.truncate(d / "trainer_state.pth", 100),
        "trainer_state.pth has 100 bytes",
    ),
    "bit flipped": (lambda d: flip(d / "lit_model.pth"), "does not have its checksum"),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        checkpoint.save(checkpoint.step_folder(tmp_path, step), contents(step))
    newest = checkpoint.step_folder(tmp_path, 2)
    spoil, message = DAMAGES[damage]
    spoil(newest)
    with pytest.raises(LitMoEError, match=message):
        checkpoint.verify(newest)
    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) == checkpoint.step_folder(tmp_path, 1)
    assert all(message in line for line in said) and len(said) == (0 if damage == "no manifest" else 1)


def test_a_manifest_cannot_name_files_outside(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", contents(1))
    (tmp_path / "outside").write_text("x")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    manifest["files"]["../outside"] = {"size": 1, "sha256": "0"}
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(LitMoEError, match="outside is missing"):
        checkpoint.verify(tmp_path / "a")


def test_newest_is_by_step_within_a_run_and_by_time_between_runs(tmp_path: Path) -> None:
    for run, step in (("a", 9), ("a", 3), ("b", 2)):
        checkpoint.save(checkpoint.step_folder(tmp_path / run, step), contents(step))
    assert checkpoint.newest(tmp_path / "a", print) == checkpoint.step_folder(tmp_path / "a", 9)
    assert checkpoint.newest(tmp_path, print, below=True) == checkpoint.step_folder(tmp_path / "b", 2)
    assert checkpoint.newest(tmp_path, print) is None  # the folder above is no run of its own
    assert checkpoint.newest(tmp_path / "none", print) is None


def test_no_code_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "hacked"),)

    (tmp_path / "c").mkdir()
    torch.save(Evil(), tmp_path / "c" / "trainer_state.pth")
    with pytest.raises(LitMoEError, match="unsafe"):
        checkpoint.load_trainer(tmp_path / "c")
    assert not (tmp_path / "hacked").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LitMoEError, match="could not be written"):
        checkpoint.save(tmp_path / "file" / "step-00000001", contents(1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "final", contents(1))
    big = contents(2, size=3_000_000)
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))  # no file may grow beyond a megabyte
    try:
        with pytest.raises(LitMoEError, match="could not be written") as error:
            checkpoint.save(tmp_path / "final", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "\n" not in str(error.value)
    assert checkpoint.verify(tmp_path / "final")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


KILLED = """
import sys, itertools, pathlib
sys.path.insert(0, {tests!r})
from test_checkpoint import contents
from litmoe import checkpoint
print("ready", flush=True)
for step in itertools.count(1):
    checkpoint.save(checkpoint.step_folder(pathlib.Path({out!r}), step % 3), contents(step, 200_000))
"""


def test_a_killed_save_leaves_no_partial_checkpoint(tmp_path: Path) -> None:
    """Kill a process that saves without pause; whatever stands under a final name is whole."""
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    for _ in range(20):  # meanwhile, a reader never finds a partial one either
        time.sleep(0.02)
        for manifest in tmp_path.glob("step-*/manifest.json"):
            try:
                checkpoint.verify(manifest.parent, contents=False)
            except LitMoEError:
                assert not manifest.exists() or checkpoint.verify(manifest.parent)
    child.kill()
    child.wait(timeout=30)
    finished = list(tmp_path.glob("step-*"))
    assert finished
    for folder in finished:
        checkpoint.verify(folder)
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.glob(".*"))
