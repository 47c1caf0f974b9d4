import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litmoe import checkpoint
from litmoe.errors import CheckpointError, LitMoEError
from litmoe.inference.loading import find_checkpoint


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


# Dying, or being refused, at every single file operation

OPERATIONS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "open"}
at_operation: Callable[[str], None] | None = None


def _audit(event: str, _: object) -> None:
    if at_operation is not None and event in OPERATIONS:
        at_operation(event)


sys.addaudithook(_audit)  # Python calls it before each of them; there is no way to take it off again


def dies_at(number: int, task: Callable[[], None]) -> bool:
    """Run a task in a process that is gone right before its ``number``-th file operation; False: it had fewer."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    count = 0

    def die(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os._exit(9)

    global at_operation
    at_operation = die
    try:
        task()
        os._exit(0)
    finally:
        os._exit(1)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def scenario(name: str, out_dir: Path) -> tuple[Callable[[], None], dict[str, set[int | None]]]:
    """A task, and for every folder the steps that it may hold after a death and a clean; None: not there."""
    for step in (1, 2):
        checkpoint.save(checkpoint.step_folder(out_dir, step), contents(step))
    checkpoint.save(out_dir / "final", contents(2))
    tasks: dict[str, Callable[[], None]] = {
        "save": lambda: checkpoint.save(checkpoint.step_folder(out_dir, 3), contents(3)),
        "replace": lambda: checkpoint.save(out_dir / "final", contents(3)),
        "copy": lambda: checkpoint.copy(out_dir / "final", checkpoint.step_folder(out_dir, 3)),
        "remove": lambda: checkpoint.remove(checkpoint.step_folder(out_dir, 1)),
        "clean": lambda: checkpoint.clean(out_dir),
    }
    allowed: dict[str, set[int | None]] = {"step-00000001": {1}, "step-00000002": {2}, "final": {2}}
    changed: dict[str, tuple[str, set[int | None]]] = {
        "save": ("step-00000003", {3, None}),
        "replace": ("final", {2, 3}),
        "copy": ("step-00000003", {2, None}),
        "remove": ("step-00000001", {1, None}),
        "clean": ("final", {2, 3}),
    }
    folder, steps = changed[name]
    if name == "clean":  # after a death in the instant between the two names
        (out_dir / "final").rename(out_dir / ".final.tmp-11-old")
        checkpoint.save(out_dir / "next", contents(3))
        (out_dir / "next").rename(out_dir / ".final.tmp-11")
    return tasks[name], allowed | {folder: steps}


@needs_fork
@pytest.mark.parametrize("name", ["save", "replace", "copy", "remove", "clean"])
def test_a_death_at_any_operation_loses_nothing(tmp_path: Path, name: str) -> None:
    """And a second one while that is put in order neither; what has a final name is whole at any time."""
    died = 0
    for number in range(1, 200):
        out_dir = tmp_path / str(number)
        task, allowed = scenario(name, out_dir)
        for path in out_dir.glob("*/manifest.json"):
            checkpoint.verify(path.parent)
        if not dies_at(number, task):
            break
        died += 1
        for path in out_dir.glob("[!.]*/manifest.json"):
            checkpoint.verify(path.parent)
        dies_at(number % 7 + 1, lambda out_dir=out_dir: checkpoint.clean(out_dir))  # type: ignore[misc]
        checkpoint.clean(out_dir)
        assert {path.name for path in out_dir.iterdir()} <= set(allowed)
        for folder, steps in allowed.items():
            found = checkpoint.verify(out_dir / folder)["step"] if (out_dir / folder).exists() else None
            assert found in steps, (number, folder)
    assert died >= 5


@pytest.mark.parametrize("refused", [1, 2])
def test_a_refused_rename_keeps_the_old_one(tmp_path: Path, refused: int) -> None:
    """As on Windows, where a file that somebody reads keeps its folder from being renamed."""
    checkpoint.save(tmp_path / "final", contents(1))
    count = 0

    def refuse(event: str) -> None:
        nonlocal count
        count += event == "os.rename"
        if event == "os.rename" and count == refused:
            raise PermissionError(13, "somebody reads it")

    global at_operation
    at_operation = refuse
    try:
        with pytest.raises(LitMoEError, match="could not be written: somebody reads it"):
            checkpoint.save(tmp_path / "final", contents(2))
    finally:
        at_operation = None
    assert checkpoint.verify(tmp_path / "final")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_cleaning_leaves_what_is_not_ours(tmp_path: Path) -> None:
    for name in ("a.tmp-1", ".notes.tmp-1", ".final.tmp-x", "step-00000001", "step-00000002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lit_model.pth").write_text("mine")  # LitGPT's step folders have no manifest
    (tmp_path / "step-00000002" / "manifest.removed.json").write_text("[]")
    (tmp_path / ".final.tmp-12").mkdir()
    (tmp_path / ".final.tmp-12" / "lit_model.pth").write_text("half a checkpoint")
    before = {path.name for path in tmp_path.iterdir()}
    checkpoint.clean(tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {".final.tmp-12"}
    checkpoint.clean(tmp_path / "nowhere")


def test_removing_takes_only_the_checkpoints_files(tmp_path: Path) -> None:
    folder = checkpoint.step_folder(tmp_path, 1)
    checkpoint.save(folder, contents(1))
    (folder / "note.txt").write_text("mine")
    checkpoint.remove(folder)
    assert [path.name for path in folder.iterdir()] == ["note.txt"]
    with pytest.raises(LitMoEError, match="not a checkpoint"):
        checkpoint.remove(folder)


def test_the_validation_loss_is_in_the_manifest(tmp_path: Path) -> None:
    for step, loss in ((1, 2.5), (2, None), (3, float("nan"))):
        folder = checkpoint.step_folder(tmp_path, step)
        checkpoint.save(folder, dataclasses.replace(contents(step), val_loss=loss))
    assert checkpoint.verify(checkpoint.step_folder(tmp_path, 1))["val_loss"] == 2.5
    assert [(s.step, s.val_loss) for s in checkpoint.step_checkpoints(tmp_path)] == [
        (1, 2.5),
        (2, None),
        (3, None),
    ]


# What may be a checkpoint and cannot be used is not absent


def leads_nowhere(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("on-a-disk-that-is-not-mounted", target_is_directory=True)


def leads_to_itself(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(path, target_is_directory=True)


def is_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def has_a_folder_for_its_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()


def has_a_looping_model(path: Path) -> None:
    (path / "lit_model.pth").unlink()
    (path / "lit_model.pth").symlink_to("lit_model.pth")


UNUSABLE: dict[str, Callable[[Path], None]] = {
    "leads nowhere": leads_nowhere,
    "leads to itself": leads_to_itself,
    "is a file": is_a_file,
    "has a folder for its manifest": has_a_folder_for_its_manifest,
    "manifest cut short": lambda path: (path / "manifest.json").write_text("{") and None,
    "manifest of no numbers": lambda path: edit(path, step=float("inf")),
    "bit flipped": lambda path: flip(path / "lit_model.pth"),
    "of LitGPT's": lambda path: (path / "manifest.json").unlink(),
}
UNREADABLE = ("leads nowhere", "leads to itself", "has a folder for its manifest")


def edit(folder: Path, **values: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | values))


@pytest.mark.parametrize("name", ["final", "step-00000002"])
@pytest.mark.parametrize("damage", UNUSABLE)
def test_a_run_with_no_usable_checkpoint_is_not_a_new_run(tmp_path: Path, damage: str, name: str) -> None:
    checkpoint.save(tmp_path / name, contents(2))
    UNUSABLE[damage](tmp_path / name)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=name) as error:
        checkpoint.clean(tmp_path)
        checkpoint.newest(tmp_path, lambda _: None)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    with pytest.raises(CheckpointError):
        checkpoint.verify(tmp_path / name)


@pytest.mark.parametrize("damage", UNREADABLE)
def test_no_older_one_is_taken_while_a_newer_one_cannot_be_read(tmp_path: Path, damage: str) -> None:
    """It may be whole: its disk may be back tomorrow. Over several runs, to generate with, others will do."""
    for step in (1, 2):
        checkpoint.save(checkpoint.step_folder(tmp_path / "run", step), contents(step))
    checkpoint.save(checkpoint.step_folder(tmp_path / "other", 1), contents(1))
    UNUSABLE[damage](checkpoint.step_folder(tmp_path / "run", 2))
    with pytest.raises(checkpoint.UnreadableError, match=r"step-00000002.*cannot be read: "):
        checkpoint.newest(tmp_path / "run", print)
    assert checkpoint.newest(tmp_path, print, below=True) == checkpoint.step_folder(tmp_path / "other", 1)


def test_what_cannot_be_read_is_neither_counted_nor_removed(tmp_path: Path) -> None:
    """A run that removes old checkpoints does not stop for one that it cannot judge."""
    for step in (1, 2, 3):
        checkpoint.save(checkpoint.step_folder(tmp_path, step), contents(step))
    leads_nowhere(checkpoint.step_folder(tmp_path, 2))
    assert [saved.step for saved in checkpoint.step_checkpoints(tmp_path)] == [1, 3]


def test_folders_that_are_no_checkpoints_do_not_count(tmp_path: Path) -> None:
    for name in ("samples", "step-00000003", "final", "best"):
        (tmp_path / name).mkdir()
    (tmp_path / "final" / "note.txt").write_text("mine")
    (tmp_path / "metrics.csv").write_text("step\n")
    (tmp_path / "step-2").write_text("x")
    assert checkpoint.newest(tmp_path, pytest.fail) is None
    assert checkpoint.newest(tmp_path / "nowhere", pytest.fail) is None


def test_a_checkpoint_is_found_behind_links(tmp_path: Path) -> None:
    checkpoint.save(checkpoint.step_folder(tmp_path / "disk" / "run", 1), contents(1))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "run").symlink_to(tmp_path / "disk" / "run", target_is_directory=True)
    (tmp_path / "checkpoints" / "loop").symlink_to(tmp_path / "checkpoints", target_is_directory=True)
    found = checkpoint.newest(tmp_path / "checkpoints", print, below=True)
    assert found == tmp_path / "checkpoints" / "run" / "step-00000001"
    assert checkpoint.newest(tmp_path / "checkpoints" / "run", print) == found


def as_ordinary_user(task: Callable[[], object]) -> str:
    """What a task returns or raises, in a process that permissions bind: they do not bind root."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            text = str(task())
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writable, text.encode())
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@needs_fork
@pytest.mark.parametrize(
    "closed", [".", "step-00000002", "step-00000002/manifest.json", "step-00000002/lit_model.pth"]
)
def test_permissions_do_not_start_a_run_over(closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        out_dir = Path(folder) / "out"
        for step in (1, 2):
            checkpoint.save(checkpoint.step_folder(out_dir, step), contents(step))
        Path(folder).chmod(0o755)
        assert as_ordinary_user(lambda: checkpoint.newest(out_dir, print)).endswith("step-00000002")
        (out_dir / closed).chmod(0)
        found = as_ordinary_user(lambda: checkpoint.newest(out_dir, print))
        asked = as_ordinary_user(lambda: find_checkpoint(out_dir / closed.partition("/")[0]))
        (out_dir / closed).chmod(0o755)
        assert found.startswith(f"UnreadableError: {out_dir}") and "Permission denied" in found
        assert "\n" not in found
        assert asked.startswith("UnreadableError: ") and "Permission denied" in asked


# What others have put into a checkpoint


def test_files_of_others_outlive_a_replaced_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2, 2):
        checkpoint.save(tmp_path / "final", contents(step))
        (tmp_path / "final" / "evaluate").mkdir()
        (tmp_path / "final" / "evaluate" / "results.json").write_text(f"of step {step}")
    moved = checkpoint.save(tmp_path / "final", contents(3))
    assert moved == [tmp_path / "final.before-step-00000003"]
    texts = {path.parents[1].name: path.read_text() for path in tmp_path.rglob("results.json")}
    assert texts == {
        "final.before-step-00000002": "of step 1",
        "final.before-step-00000002-2": "of step 2",
        "final.before-step-00000003": "of step 2",
    }
    assert checkpoint.verify(tmp_path / "final")["step"] == 3
    assert checkpoint.newest(tmp_path, pytest.fail) == tmp_path / "final"


def test_a_whole_checkpoint_that_cannot_be_renamed_is_kept(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "next", contents(3))
    (tmp_path / "next").rename(tmp_path / ".final.tmp-11")

    def refuse(event: str) -> None:
        if event == "os.rename":
            raise PermissionError(13, "not here")

    global at_operation
    at_operation = refuse
    try:
        with pytest.raises(CheckpointError, match="could not be renamed to final: not here"):
            checkpoint.clean(tmp_path)
    finally:
        at_operation = None
    assert checkpoint.verify(tmp_path / ".final.tmp-11")["step"] == 3
