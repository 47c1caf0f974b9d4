"""Events of a run: what is recorded is read back, and nothing that is only shown gets in the way of the work."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litmoe.errors import LitMoEError
from litmoe.training.recording.events import Event, EventLog, read_events

ADDED = st.tuples(
    st.text(min_size=1, max_size=20),
    st.text(max_size=60),
    st.integers(0, 10**9),
    st.dictionaries(st.text(max_size=9), st.none() | st.integers() | st.text(max_size=9) | st.booleans()),
)


@given(added=st.lists(ADDED, max_size=8), opened=st.integers(0, 8))
def test_what_is_added_is_read(
    added: list[tuple[str, str, int, dict[str, object]]],
    opened: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Before the file is open and after, whatever the text."""
    folder = tmp_path_factory.mktemp("events")
    log = EventLog()
    for number, (kind, message, step, figures) in enumerate([*added, *[("x", "x", 1, {})] * 9]):
        if number == opened:
            log.open(folder)
        if number < len(added):
            log.add(kind, message, step=step, figures=figures)  # type: ignore[arg-type]
    log.close()
    found = [(e.kind, e.message, e.step, e.figures) for e in read_events(folder)]
    assert found == [
        (kind, " ".join(message.split()), step, figures) for kind, message, step, figures in added
    ]


def test_half_a_character_of_a_name_is_recorded(tmp_path: Path) -> None:
    log = EventLog()
    log.open(tmp_path)
    log.add("saved", "saved out-\udcff/step-1", figures={"path": "\udcff"})
    log.close()
    (event,) = read_events(tmp_path)
    assert (event.message, event.figures) == ("saved out-\udcff/step-1", {"path": "\udcff"})


@pytest.mark.parametrize("tail", ["", "{", '{"kind": "skip", "step": 3', "\0\0\0", "[]\n", '{"kind": 1}\n'])
def test_a_damaged_end_costs_no_event_before_or_after_it(tmp_path: Path, tail: str) -> None:
    whole = {"kind": "skip", "step": 2, "time": 1.5, "message": "bad", "figures": {}}
    (tmp_path / "events.jsonl").write_text(f"{json.dumps(whole)}\n{tail}", encoding="utf-8")
    log = EventLog()
    log.add("resume", "resumed", step=2)
    log.open(tmp_path)
    log.close()
    events = read_events(tmp_path / "events.jsonl")
    assert events[0] == Event("skip", 2, "bad", 1.5)
    assert [event.kind for event in events] == ["skip", "resume"]


def test_no_file_is_no_events_and_one_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(LitMoEError, match="cannot be read"):
        read_events(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        UnicodeEncodeError("cp1252", "\u2019", 0, 1, "character maps to <undefined>"),
        OSError(28, "No space left on device"),
        ValueError("I/O operation on closed file"),
        RuntimeError("of whoever wrote this say"),
    ],
)
def test_a_say_that_fails_is_an_event_once_and_then_mute(tmp_path: Path, error: Exception) -> None:
    calls: list[str] = []

    def say(line: str) -> None:
        calls.append(line)
        if len(calls) == 2:
            raise error

    log = EventLog(say)
    log.open(tmp_path)
    for line in ("one", "two", "three"):
        log.say(line)
    log.add("skip", "four", step=4)
    log.close()
    assert calls == ["one", "two"]
    failed, skip = read_events(tmp_path)
    assert (failed.kind, skip.kind) == ("output_failed", "skip")
    assert type(error).__name__ in failed.message and "training goes on without its output" in failed.message


def test_ctrl_c_is_no_failure_to_show() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EventLog().show("output_failed", interrupted, "never")


def test_each_kind_stops_by_itself(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("gone")

    said: list[str] = []
    log = EventLog(said.append)
    assert not log.show("logger_failed", fail, "training goes on without it")
    assert not log.show("logger_failed", lambda: said.append("not tried again"), "")
    assert log.show("sample_failed", lambda: said.append("still tried"), "")
    assert said == ["OSError: gone; training goes on without it", "still tried"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_the_events_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    said: list[str] = []
    log = EventLog(said.append)
    log.open(tmp_path)
    log.add("skip", "bad", step=1)
    log.close()
    assert said == ["bad"]
