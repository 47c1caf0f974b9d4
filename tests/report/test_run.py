"""A run's folder as figures: equal to its files, bounded whatever they hold, and hints only with a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.runs import Row, event, run_folder, sample

from litmoe import checkpoint
from litmoe.errors import LitMoEError
from litmoe.report import folder as report_folder
from litmoe.report.figures import RunFigures
from litmoe.report.run import as_json, dump, read_run, read_runs
from litmoe.report.run_page import report_page, write_report
from litmoe.training.recording.about import RunFile, is_alive
from litmoe.training.recording.samples_file import append_samples

MOST_BYTES = 2_000_000


def _titles(run: RunFigures) -> list[str]:
    return [hint.title for hint in run.hints]


def test_figures_equal_the_metrics(tmp_path: Path) -> None:
    rows = run_folder(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.curves.rows_per_point == 1 and run.curves.step == [row["step"] for row in rows]
    assert run.curves.values["train_loss"].mean == pytest.approx(
        [row["train_loss"] for row in rows], rel=1e-5
    )
    validated = [row for row in rows if "val_loss" in row]
    assert run.validation.values["val_loss"].mean == pytest.approx(
        [r["val_loss"] for r in validated], rel=1e-5
    )
    best = min(validated, key=lambda row: row["val_loss"])
    assert run.best["val_loss"] == best["val_loss"] and run.best["step"] == best["step"]
    assert run.load is not None and len(run.load.relative) == 2
    for layer in range(2):
        for expert in range(4):
            share = [4 * row[f"load_L{layer}_E{expert}"] for row in rows]
            assert run.load.relative[layer][expert] == pytest.approx(share, rel=1e-3)
    assert run.last["step"] == 1200 and run.state == "finished" and not run.hints


def test_a_long_run_keeps_means_and_ranges(tmp_path: Path) -> None:
    rows = run_folder(tmp_path / "run", rows=5000, every=1)
    run = read_run(tmp_path / "run")
    width = run.curves.rows_per_point
    loss, curve = [row["train_loss"] for row in rows], run.curves.values["train_loss"]
    assert width > 1 and len(curve.mean) <= 600
    parts = [loss[at : at + width] for at in range(0, len(loss), width)]
    assert curve.mean == pytest.approx([np.mean(part) for part in parts], rel=1e-5)
    assert curve.low == pytest.approx([min(part) for part in parts], rel=1e-5)
    assert curve.high == pytest.approx([max(part) for part in parts], rel=1e-5)
    assert run.load is not None and len(run.load.step) <= 150


@pytest.mark.parametrize(("layers", "experts"), [(60, 8), (24, 256), (1, 2), (0, 0)])
def test_a_wide_model_fits_the_page(tmp_path: Path, layers: int, experts: int) -> None:
    run_folder(tmp_path / "run", rows=40, layers=layers, experts=experts)
    page = write_report([tmp_path / "run"])
    assert page.stat().st_size < MOST_BYTES
    load = read_run(tmp_path / "run").load
    if experts:
        assert load is not None
        assert len(load.relative) == layers and len(load.relative[0]) * load.pooled >= experts
        assert (load.pooled > 1) == (experts == 256)
    else:
        assert load is None


@pytest.mark.timeout(120)
def test_a_million_steps_take_seconds_and_little_memory(tmp_path: Path) -> None:
    """In a process of its own, whose memory is measured."""
    run_folder(tmp_path / "short", rows=600, layers=2, experts=8, every=1)
    text = (tmp_path / "short" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    tail = "," + text[-1].split(",", 1)[1]
    (tmp_path / "long").mkdir()
    with (tmp_path / "long" / "metrics.csv").open("w", encoding="utf-8") as file:
        file.write(text[0] + "\n")
        for first in range(1, 1_000_001, 10_000):
            file.write("".join(f"{step}{tail}\n" for step in range(first, first + 10_000)))
    script = (
        "import sys, time; from pathlib import Path\n"
        "from litmoe.report.run_page import write_report\n"
        "started = time.perf_counter(); page = write_report([Path(sys.argv[1])])\n"
        "print(page.stat().st_size, time.perf_counter() - started, 'torch' in sys.modules)\n"
        "from support.memory import peak_memory; print(peak_memory())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    sizes = []
    for name in ("short", "long"):
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        size, seconds, torch, peak = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=True
        ).stdout.split()
        sizes.append(int(size))
        assert int(peak) < 300e6 and float(seconds) < 60 and torch == "False"
    assert sizes[1] < sizes[0] * 1.1 < MOST_BYTES


def test_hints_name_their_figure(tmp_path: Path) -> None:
    def collapse(at: int, row: Row) -> None:
        for expert in range(8):
            row[f"load_L1_E{expert}"] = 0.49 if expert < 2 else 0.02 / 5 if expert < 7 else 0.0
        row["load_max_over_mean_L1"], row["dead_experts_L1"] = 0.49 * 8, 1

    run_folder(tmp_path / "collapsed", experts=8, change=collapse)
    run = read_run(tmp_path / "collapsed")
    assert _titles(run)[:2] == ["The router of layer 1 has collapsed", "Experts are dead"]
    assert "2 of 8 experts get 98% of the tokens" in run.hints[0].figure
    assert "1 in layer 1, of 8 each" in run.hints[1].figure

    def spoil(at: int, row: Row) -> None:
        row["train_loss"] = float("nan") if at == 50 else row["train_loss"] * (3 if at == 80 else 1)
        if "val_loss" in row:
            row["val_loss"] = 2 + abs(at - 60) / 60
        row["grad_norm"] = 9.0
        row["tokens_per_second"] = 4096 if at < 90 else 1000
        row["skipped_steps"], row["rollbacks"] = (0, 0) if at < 50 else (3, 1)

    run_folder(tmp_path / "spoilt", change=spoil, about={"settings": {"train": {"max_norm": 1.0}}})
    run = read_run(tmp_path / "spoilt")
    assert set(_titles(run)) == {
        "The loss was not a finite number",
        "Steps were skipped",
        "The loss spikes",
        "The validation loss rises again",
        "The gradient is clipped hard at nearly every step",
        "The run has become slower",
    }
    figures = " ".join(hint.figure for hint in run.hints)
    assert (
        "1 of 120" in figures and "skipped_steps = 3, rollbacks = 1" in figures and "near step 800" in figures
    )

    run_folder(
        tmp_path / "stuck",
        change=lambda at, row: row.update(train_loss=6.2),
        about={"model": {"vocab_size": 512}},
    )
    assert "The model has not learned yet" in _titles(read_run(tmp_path / "stuck"))


def test_what_is_beside_the_metrics_may_be_anything(tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    for name in ("run.json", "events.jsonl", "samples.jsonl"):
        for content in (
            b"",
            b"\xff\xfe\x00",
            b"[1, 2]\n{}\nnull\n" + b"[" * 5000,
            b'{"step": "x", "kind": 3, "text": 1}\n',
        ):
            (tmp_path / "run" / name).write_bytes(content)
            run = read_run(tmp_path / "run")
            assert run.state in ("finished", "stopped") and not run.events and not run.samples
            assert "NaN" not in dump(as_json([run]))
        (tmp_path / "run" / name).unlink()


def test_texts_and_events_over_time(tmp_path: Path) -> None:
    texts = [*(sample(step, f"at {step}") for step in range(10, 1300, 10)), sample(600, "again at 600")]
    happened = [event(5, "skip", "of another run"), event(0, "start", "new run")]
    happened += [event(step, "saved", "a checkpoint") for step in range(1, 500)] + [
        event(605, "rollback", "went back")
    ]
    run_folder(tmp_path / "run", events=tuple(happened), samples=tuple(texts))
    run = read_run(tmp_path / "run")
    assert len(run.samples) <= report_folder.SHOWN_SAMPLES and run.samples[0].step == 10
    assert (run.samples[-1].step, run.samples[-1].text) == (
        600,
        "again at 600",
    )  # the run went back behind 610
    assert [text.step for text in run.samples] == sorted({text.step for text in run.samples})
    assert run.events_by_kind == {"saved": 499, "start": 1, "rollback": 1}
    assert [found.kind for found in run.events] == ["start", "rollback"]
    assert run.events[1].total_tokens == pytest.approx(605 * 1024) and run.events[1].time == pytest.approx(
        605 / 4
    )


def test_the_state_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rows = run_folder(folder)
    file = RunFile(folder, {"model": {"name": "x"}}, first_step=0, resumed=False)
    assert read_run(folder).state == "running"
    file.end("interrupted", 12)
    assert read_run(folder).state == "interrupted"
    RunFile(folder, {}, first_step=12, resumed=True)
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert [part["first_step"] for part in about["parts"]] == [0, 12] and about["parts"][0]["last_step"] == 12
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert is_alive(about) and not is_alive(about | {"pid": ended.pid}) and not is_alive({"pid": "x"})
    (folder / "run.json").write_text(json.dumps(about | {"pid": ended.pid}), encoding="utf-8")
    assert read_run(folder).state == "stopped"
    append_samples(folder, int(rows[-1]["step"]), 5, ["text \ud800 with half a pair"])
    assert read_run(folder).samples[0].text.startswith("text ")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match="no such folder"):
        read_run(tmp_path / "nothing")
    with pytest.raises(LitMoEError, match=r"it has no metrics\.csv"):
        read_run(tmp_path)
    run_folder(tmp_path / "run", rows=3)
    with pytest.raises(LitMoEError, match="named twice"):
        read_runs([tmp_path / "run", tmp_path / "run" / "."])
    with pytest.raises(LitMoEError, match="from 1 to 8 runs, got 9"):
        read_runs([tmp_path / "run"] * 9)
    with pytest.raises(LitMoEError, match="cannot be written"):
        write_report([tmp_path / "run"], out=tmp_path / "run" / "metrics.csv" / "report.html")


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", rows=0)
    assert "Run run" in report_page(read_runs([tmp_path / "run"]))


def test_names_of_files_are_those_of_the_checkpoint() -> None:
    assert checkpoint.SETTINGS == report_folder.SETTINGS_FILE
    assert f"{checkpoint.FINAL}/{checkpoint.MANIFEST}" == report_folder.FINAL_MANIFEST
