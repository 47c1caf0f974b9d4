"""What lies in a run's folder besides ``metrics.csv``: what the run is, its texts, its events, its state."""

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litmoe.config.files import read_yaml
from litmoe.errors import LitMoEError
from litmoe.report.figures import Event, SampleText
from litmoe.training.recording.about import RUN_FILE, is_alive
from litmoe.training.recording.events import EVENTS
from litmoe.training.recording.samples_file import SAMPLES_FILE

SETTINGS_FILE, FINAL_MANIFEST = "hyperparameters.yaml", "final/manifest.json"
"""As in `litmoe.checkpoint`, whose import takes torch and with it seconds and 300 MB."""

SHOWN_SAMPLES = 24
SHOWN_EVENTS = 200
SHOWN_CHARACTERS = 1500

_LONGEST_LINE = 1 << 20
"""Longer lines of a JSONL file are not ours, and are dropped."""


@dataclass
class Samples:
    """Texts over time: the first, the last, and evenly many between."""

    shown: list[SampleText] = field(default_factory=list)
    in_all: int = 0


@dataclass
class Events:
    """What was unusual: counted by kind, the last ones in full."""

    shown: list[Event] = field(default_factory=list)
    by_kind: dict[str, int] = field(default_factory=dict)


def read_about(folder: Path) -> dict[str, Any]:
    """``run.json``; empty where there is none, or none that can be read."""
    try:
        about = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def read_settings(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run: from ``run.json``, else from its newest checkpoint, else empty."""
    if isinstance(about.get("settings"), dict):
        return dict(about["settings"])
    files = sorted(folder.glob(f"*/{SETTINGS_FILE}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(files):
        try:
            return dict(read_yaml(path))
        except LitMoEError:
            continue
    return {}


def state_of(folder: Path, about: dict[str, Any]) -> str:
    """``running``, ``finished``, ``interrupted``, ``failed``; ``stopped`` where it ended without a word."""
    state = about.get("state")
    if state == "running":
        return "running" if is_alive(about) else "stopped"
    if state in ("finished", "interrupted", "failed"):
        return str(state)
    return "finished" if (folder / FINAL_MANIFEST).is_file() else "stopped"


def read_samples(folder: Path, last_step: int | None) -> Samples:
    """The texts that the model wrote while it trained, in bounded memory.

    Of a step that was done again after a resume or rollback the last text counts; texts of steps that the run has
    gone back behind do not.
    """
    kept: list[SampleText] = []
    stride, count, newest = 1, 0, None
    for record in _records(folder / SAMPLES_FILE):
        sample = _sample(record)
        if sample is None or (last_step is not None and sample.step > last_step):
            continue
        if newest is not None and sample.step < newest.step:  # the run went back: what came after is no more
            kept = [old for old in kept if old.step < sample.step]
        if count % stride == 0:
            kept.append(sample)
        count += 1
        newest = sample
        if len(kept) > 2 * SHOWN_SAMPLES:
            kept, stride = kept[::2], stride * 2
    if newest is not None and newest not in kept:
        kept.append(newest)
    while len(kept) > SHOWN_SAMPLES:
        kept = [*kept[:-1:2], kept[-1]]
    return Samples(kept, count)


def read_events(folder: Path) -> Events:
    """The events of a run, in bounded memory; saved checkpoints are counted and not listed.

    Those before the last start, of another run in the same folder, do not count.
    """
    shown: deque[Event] = deque(maxlen=SHOWN_EVENTS)
    kinds: Counter[str] = Counter()
    for record in _records(folder / EVENTS):
        step, kind = record.get("step"), record.get("kind")
        if not isinstance(step, int) or not isinstance(kind, str):
            continue
        if kind == "start":
            kinds.clear()
            shown.clear()
        kinds[kind[:40]] += 1
        if kind == "saved":
            continue
        shown.append(Event(step, kind[:40], str(record.get("message", ""))[:300]))
    return Events(list(shown), dict(kinds.most_common(20)))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that are none, as the last one of a killed process, are dropped."""
    try:
        with path.open("rb") as file:
            while raw := file.readline(_LONGEST_LINE):
                try:
                    record = json.loads(raw)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record
    except OSError:
        return


def _sample(record: dict[str, Any]) -> SampleText | None:
    step, text, tokens = record.get("step"), record.get("text"), record.get("total_tokens")
    if not isinstance(step, int) or not isinstance(text, str):
        return None
    return SampleText(
        step,
        tokens if isinstance(tokens, int) else None,
        text[:SHOWN_CHARACTERS],
        cut=len(text) > SHOWN_CHARACTERS,
    )
