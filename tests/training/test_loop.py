"""The training loop against itself: what must not change a run, does not."""

import csv
import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from litmoe import checkpoint
from litmoe.config import TrainConfig, as_plain
from litmoe.diagnostics.verify_resume import first_difference
from litmoe.errors import LitMoEError
from litmoe.training.loop import train

MakeConfig = Callable[..., TrainConfig]
CLOCK = {"time", "tokens_per_second", "flops_per_second", "host_memory"}


def rows(out_dir: Path) -> list[dict[str, str]]:
    """The metrics of a run, without what depends on the clock."""
    with (out_dir / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in checkpoint.load_model(folder).items()}


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def distance(a: Path, b: Path) -> float:
    first, second = weights(a), weights(b)
    return max(((first[n] - second[n]).norm() / second[n].norm().clamp_min(1e-12)).item() for n in first)


LONG = {"train": {"max_steps": 60, "save_interval": 25, "log_interval": 3}}


@pytest.mark.parametrize("balance", ["switch", "bias", "none"])
def test_a_resumed_run_is_the_run_that_would_have_been(
    make_config: MakeConfig, tmp_path: Path, balance: str
) -> None:
    """Weights, optimizer and metrics bit for bit, across the ends of epochs; by ``auto`` and by folder."""
    moe = {"moe": {"balance": balance}}
    whole = train(make_config(out_dir=str(tmp_path / "whole"), **LONG, **moe))
    assert float(rows(tmp_path / "whole")[-1]["epoch"]) > 2
    stopped = tmp_path / "stopped"  # after the checkpoint of step 25, with metrics of some steps more
    checkpoint.copy(tmp_path / "whole" / "step-00000025", stopped / "step-00000025")
    lines = (tmp_path / "whole" / "metrics.csv").read_text().splitlines(keepends=True)
    (stopped / "metrics.csv").write_text("".join(lines[:18]))
    assert int(rows(stopped)[-1]["step"]) > 25
    train(make_config("--resume=auto", out_dir=str(stopped), **LONG, **moe))
    assert equal(stopped / "final", whole.checkpoint)
    assert rows(stopped) == rows(tmp_path / "whole")
    before, after = (checkpoint.load_trainer(d / "final") for d in (tmp_path / "whole", stopped))
    for old, new in zip(
        before["optimizer"]["state"].values(), after["optimizer"]["state"].values(), strict=True
    ):
        assert all(torch.equal(old[key], new[key]) for key in old)
    by_folder = tmp_path / "by_folder"
    train(
        make_config(f"--resume={tmp_path / 'whole' / 'step-00000050'}", out_dir=str(by_folder), **LONG, **moe)
    )
    assert equal(by_folder / "final", whole.checkpoint)
    assert rows(by_folder) == [row for row in rows(tmp_path / "whole") if int(row["step"]) > 50]


def test_metrics_go_on_without_gap_or_repetition(make_config: MakeConfig, tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(make_config(out_dir=str(whole), **LONG))
    train(make_config(out_dir=str(again), **LONG))
    (
        again / "final" / "manifest.json"
    ).unlink()  # the last checkpoint is now that of step 50, the metrics are ahead
    train(make_config("--resume=auto", out_dir=str(again), **LONG))
    assert rows(again) == rows(whole)
    steps = [int(row["step"]) for row in rows(again)]
    assert steps == sorted(set(steps)) and steps[-1] == 60


def test_runs_repeat_to_the_bit_and_seeds_differ(make_config: MakeConfig, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(make_config(f"--seed={seed}", out_dir=str(tmp_path / name)))
    assert equal(tmp_path / "a" / "final", tmp_path / "b" / "final")
    assert not equal(tmp_path / "a" / "final", tmp_path / "c" / "final")


@pytest.mark.parametrize("words", [["--train.micro_batch_size=1"], ["--train.micro_batch_size=8"]])
def test_the_micro_batch_changes_only_the_rounding(
    make_config: MakeConfig, tmp_path: Path, words: list[str]
) -> None:
    moe = {"moe": {"balance": "switch", "switch_coefficient": 0.1}}
    train(make_config(out_dir=str(tmp_path / "four"), **moe))
    train(make_config(*words, out_dir=str(tmp_path / "other"), **moe))
    assert distance(tmp_path / "other" / "final", tmp_path / "four" / "final") < 2e-4
    for a, b in zip(rows(tmp_path / "four"), rows(tmp_path / "other"), strict=True):
        assert float(a["train_loss"]) == pytest.approx(float(b["train_loss"]), rel=1e-4)
        assert float(a["switch_loss"]) == pytest.approx(float(b["switch_loss"]), rel=1e-2)


def test_workers_change_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(make_config(f"--data.init_args.num_workers={workers}", out_dir=str(tmp_path / str(workers))))
    assert equal(tmp_path / "0" / "final", tmp_path / "2" / "final")
    assert rows(tmp_path / "0") == rows(tmp_path / "2")


def train_apart(config: TrainConfig, folder: Path, python: str) -> None:
    """A run on two devices, by a script of its own."""
    settings = folder / "settings.yaml"
    settings.write_text(yaml.safe_dump(as_plain(config)))
    script = folder / "script.py"  # no guard around the call: nothing imports this file again
    script.write_text(
        f"from litmoe import load_train_config, train\ntrain(load_train_config({str(settings)!r}), say=print)\n"
    )
    done = subprocess.run([python, str(script)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "on 2 device(s)" in done.stdout


@pytest.mark.slow
def test_two_processes_train_like_one(make_config: MakeConfig, tmp_path: Path, plain_python: str) -> None:
    """Data-parallel over two CPU processes: the same data, the same counts, the same weights but for rounding."""
    train(make_config(out_dir=str(tmp_path / "one")))
    train_apart(make_config(out_dir=str(tmp_path / "two"), devices=2), tmp_path, plain_python)
    assert distance(tmp_path / "two" / "final", tmp_path / "one" / "final") < 2e-4
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert float(a["train_loss"]) == pytest.approx(float(b["train_loss"]), rel=1e-4)
        assert a["total_tokens"] == b["total_tokens"]
        if a["val_loss"]:
            assert float(a["val_loss"]) == pytest.approx(float(b["val_loss"]), rel=1e-4)


@pytest.mark.slow
def test_two_processes_round_alike(make_config: MakeConfig, tmp_path: Path, plain_python: str) -> None:
    """Weights rounded at random are the same on both devices: else a resume, which gives both those of the first,
    would not be the run that would have been. Muon's groups are of both kinds, matrices and AdamW's."""
    words = ("--precision=bf16-true", "--max-steps=6", "--train.save_interval=4", "--max-seq-length=32")
    muon = {"class_path": "Muon", "init_args": {"lr": 0.01}}
    whole, again = tmp_path / "whole", tmp_path / "again"
    train_apart(make_config(*words, out_dir=str(whole), devices=2, optimizer=muon), tmp_path, plain_python)
    checkpoint.copy(whole / "step-00000004", again / "step-00000004")
    (again / "metrics.csv").write_bytes((whole / "metrics.csv").read_bytes())
    resumed = make_config(*words, "--resume=auto", out_dir=str(again), devices=2, optimizer=muon)
    train_apart(resumed, tmp_path, plain_python)
    assert first_difference(whole, again) is None


def test_loads_are_counted_over_the_whole_global_batch(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config("--train.micro_batch_size=2"))
    for row in rows(tmp_path / "out"):
        for layer in (0, 1):
            assert sum(float(row[f"load_L{layer}_E{e}"]) for e in range(4)) == pytest.approx(1, abs=1e-5)
    state = checkpoint.load_trainer(tmp_path / "out" / "final")["state"]
    assert state["load_LE"].sum(dim=1).tolist() == [8 * 64 * 2] * 2


def test_bias_balancing_evens_the_load(make_config: MakeConfig, tmp_path: Path) -> None:
    settings = {"train": {"max_steps": 60, "save_interval": None}, "optimizer": {"init_args": {"lr": 0.01}}}
    for balance, words in (("none", []), ("bias", ["--moe.bias_update_speed=0.02"])):
        train(make_config(f"--moe.balance={balance}", *words, out_dir=str(tmp_path / balance), **settings))
    uneven = {name: float(rows(tmp_path / name)[-1]["load_max_over_mean"]) for name in ("none", "bias")}
    assert uneven["bias"] < min(1.35, uneven["none"])


def test_tied_embeddings_stay_tied(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config("--train.tie_embeddings=true"))
    state = weights(tmp_path / "out" / "final")
    assert torch.equal(state["lm_head.weight"], state["transformer.wte.weight"])


def test_initial_weights_start_a_new_run(make_config: MakeConfig, tmp_path: Path) -> None:
    first = train(make_config(out_dir=str(tmp_path / "first")))
    config = make_config(
        f"--initial_checkpoint_dir={first.checkpoint}", "--max-steps=1", "--eval.initial_validation=true"
    )
    second = train(config)
    assert second.steps == 1
    assert distance(second.checkpoint, first.checkpoint) < 0.5
    assert [row["step"] for row in rows(tmp_path / "out")] == ["0", "1"]
    started, went_on = (float(rows(tmp_path / n)[i]["train_loss"]) for n, i in (("first", 0), ("out", 1)))
    assert went_on < started - 0.2


def test_an_existing_run_is_not_written_over(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config())
    before = rows(tmp_path / "out")
    with pytest.raises(LitMoEError, match="already holds a run"):
        train(make_config())
    with pytest.raises(LitMoEError, match="n_layer: 2 in the checkpoint, 1 now"):
        train(make_config("--resume=auto", "--model_config.n_layer=1"))
    with pytest.raises(LitMoEError, match="optimizer: AdamW in the checkpoint, SGD now"):
        train(make_config("--resume=auto", "--optimizer=SGD", "--optimizer.init_args.lr=0.1"))
    assert rows(tmp_path / "out") == before


def test_more_tokens_are_accepted_on_resume(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config())
    assert train(make_config("--resume=auto")).steps == 6  # complete: nothing left to do
    assert train(make_config("--resume=auto", "--max-steps=8", "--train.log_interval=2")).steps == 8
    assert [int(row["step"]) for row in rows(tmp_path / "out")] == [1, 2, 3, 4, 5, 6, 8]


def test_a_loss_that_is_not_finite_stops_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(LitMoEError, match=r"step \d+: the .* is (nan|inf)"):
        train(make_config("--max-steps=40", "--optimizer.init_args.lr=1e30", "--train.save_interval=1"))
    for folder in (tmp_path / "out").glob("step-*"):
        assert all(torch.isfinite(tensor).all() for tensor in weights(folder).values())


def test_max_time_ends_a_run_with_a_checkpoint(make_config: MakeConfig) -> None:
    result = train(make_config("--max-steps=100000", "--train.max_time=1.5", "--train.save_interval=null"))
    assert 0 < result.steps < 100_000
    assert checkpoint.verify(result.checkpoint)["step"] == result.steps


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_lower_precisions_train(make_config: MakeConfig, tmp_path: Path, precision: str) -> None:
    said: list[str] = []
    train(make_config(f"--precision={precision}", "--max-steps=30"), said.append)
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert ("this CPU has no instructions for bf16" in "\n".join(said)) == (not has_bf16)
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "out")]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-seq-length=65"], "longer than the model's block_size 64"),
        (
            ["--model_config.vocab_size=300", "--model_config.padded_vocab_size=300"],
            "the tokenizer has 512 tokens",
        ),
        (["--model_config.n_experts=4"], "unknown setting n_experts; did you mean n_expert?"),
        (["--model_config.n_head=5"], "impossible model"),
        (["--model_config.n_expert_per_token=9"], "n_expert_per_token"),
        (["--model_config.n_layer=two"], "n_layer: expected int"),
        (["--model_config.mlp_class_name=LLaMAMLP"], "has no effect with mlp_class_name"),
        (["--optimizer.init_args.lrr=1"], "takes no such argument; did you mean lr?"),
        (["--optimizer.init_args.lr=fast"], "expected a number"),
        (["--optimizer=AdamX"], "did you mean torch.optim.Adam"),
        (["--optimizer=nowhere.Adam"], "No module named"),
        (["--data.init_args.num_worker=1"], "did you mean num_workers?"),
        (["--data.init_args.num_workers=-1"], "expected a whole number"),
        (["--data=os.path"], "no DataModule of that name"),
        (["--accelerator=cuda"], "sees no CUDA device"),
        (["--precision=16-mixed"], "needs a CUDA device"),
        (["--tokenizer_dir=nowhere"], "nowhere"),
        (["--data-dir=nowhere"], "nowhere"),
        (["--resume=nowhere"], "no such checkpoint"),
        (["--resume=true"], "no valid checkpoint to resume"),
        (["--initial_checkpoint_dir=nowhere"], "no such folder"),
        (["--train.min_lr=1.0"], "above the learning rate"),
        (["--train.max_steps=null", "--max-tokens=10"], "before its first step"),
        (["--logger_name=mlflow"], "litmoe\\[mlflow\\]"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    make_config: MakeConfig, tmp_path: Path, words: list[str], message: str
) -> None:
    if torch.cuda.is_available() and "CUDA" in message:
        pytest.skip("there is a CUDA device here")
    if "mlflow" in message and importlib.util.find_spec("mlflow"):
        pytest.skip("mlflow is installed here")
    with pytest.raises(LitMoEError, match=message) as error:
        train(make_config(*words))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*/lit_model.pth"))


def test_less_data_than_a_window_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "text" / split).mkdir(parents=True)
        (tmp_path / "text" / split / "a.txt").write_text("Too short.")
    with pytest.raises(LitMoEError, match="less than one window"):
        train(make_config(f"--data-dir={tmp_path / 'text'}"))


def test_every_figure_is_in_tensorboard(make_config: MakeConfig) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra: tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config("--logger_name=tensorboard")
    train(config)
    (folder,) = {path.parent for path in config.out_dir.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    with (config.out_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("train_loss", "val_loss", "learning_rate"):
        written = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)] == written
