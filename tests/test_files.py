"""Whole or not at all: what stands under a final name, whatever happens to the process that writes it."""

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from support.holding import hold

from litmoe.errors import DiskFullError, LitMoEError
from litmoe.files import (
    hold_lock,
    only_one_process,
    replacing_folder,
    whole_file,
    whole_folder,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.json", "one\n")
    write_text(tmp_path / "new" / "a.json", "zwei ü\n")
    assert (tmp_path / "new" / "a.json").read_bytes() == "zwei ü\n".encode()
    assert names(tmp_path / "new") == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "the disk is ill"), ValueError("x")])
def test_an_error_keeps_the_older_file(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a", "old")
    with (
        pytest.raises(LitMoEError if isinstance(error, OSError) else type(error)),
        whole_file(tmp_path / "a") as building,
    ):
        building.write_text("half of the n")
        raise error
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_messages_are_one_line_with_the_reason_and_the_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LitMoEError, match=r"file.a: cannot be written: .*; choose another --out-dir"):
        write_text(tmp_path / "file" / "a", "x", "choose another --out-dir")
    with pytest.raises(LitMoEError, match="folder: cannot be written"):
        write_text(tmp_path / "folder", "x")
    with (
        pytest.raises(LitMoEError, match="is a file where a store folder"),
        whole_folder(tmp_path / "file", (), "store"),
    ):
        pass
    with pytest.raises(DiskFullError, match="free some space"), whole_file(tmp_path / "a"):
        raise OSError(28, "No space left on device")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    write_text(tmp_path / "far" / "a", "old")
    (tmp_path / "far" / "store").mkdir()
    try:
        (tmp_path / "a").symlink_to(tmp_path / "far" / "a")
        (tmp_path / "store").symlink_to(tmp_path / "far" / "store", target_is_directory=True)
    except OSError:
        pytest.skip("this system lets no user make links")
    write_text(tmp_path / "a", "new")
    with whole_folder(tmp_path / "store", (), "store") as building:
        (building / "tokens").write_text("1")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "far" / "a").read_text() == "new"
    assert (tmp_path / "store").is_symlink() and (tmp_path / "far" / "store" / "tokens").exists()
    assert names(tmp_path) == ["a", "far", "store"] and names(tmp_path / "far") == ["a", "store"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "notes.txt").write_text("mine")
    with (
        pytest.raises(LitMoEError, match=r"not a token store of litmoe \(notes.txt\)"),
        whole_folder(tmp_path / "store", ("tokens",), "token store"),
    ):
        pytest.fail("nothing may be built")
    assert names(tmp_path / "store") == ["notes.txt"]


def test_a_death_between_the_two_renames_loses_no_folder(tmp_path: Path) -> None:
    """The older folder is back before anything is built, and again when that fails."""
    (tmp_path / ".store.building-old").mkdir()
    (tmp_path / ".store.building-old" / "tokens").write_text("old")
    (tmp_path / ".store.building").mkdir()
    with pytest.raises(ValueError), replacing_folder(tmp_path / "store", ".building") as building:
        assert not list(building.iterdir())
        raise ValueError
    assert names(tmp_path) == ["store"] and (tmp_path / "store" / "tokens").read_text() == "old"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_killed_writer_leaves_the_older_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    child = os.fork()
    if not child:
        try:
            with whole_file(tmp_path / "a") as building:
                building.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert (tmp_path / "a").read_text() == "old"
    write_text(tmp_path / "a", "new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "new"


def test_others_wait_or_are_refused_and_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    start = multiprocessing.get_context("spawn")
    held, end = start.Event(), start.Event()
    holder = start.Process(target=hold, args=(str(tmp_path), held, end))
    holder.start()
    assert held.wait(60)

    def refuse() -> None:
        raise LitMoEError("another process is writing there")

    with (
        pytest.raises(LitMoEError, match="another process is writing there"),
        hold_lock(tmp_path / ".store.lock", refuse),
    ):
        pytest.fail("somebody else holds it")
    said: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        with only_one_process(tmp_path / "store", said.append):
            entered.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not entered.wait(0.3)
    holder.kill()
    holder.join(60)
    assert entered.wait(60)
    waiting.join(60)
    assert said == [f"waiting for another process that is writing {tmp_path / 'store'}"]


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs permissions that bind this user"
)
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(LitMoEError, match="cannot be written: Permission denied"):
            write_text(tmp_path / "a", "x")
        with (
            pytest.raises(LitMoEError, match=r"cannot write in .*choose another folder"),
            only_one_process(tmp_path / "store", print),
        ):
            pass
    finally:
        tmp_path.chmod(0o700)
