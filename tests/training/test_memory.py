"""The settings that save memory, in whole runs: they learn, go on to the bit, and exclude what they must."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litmoe import checkpoint
from litmoe.config import TrainConfig
from litmoe.config.checks import check
from litmoe.diagnostics.verify_resume import first_difference
from litmoe.errors import LitMoEError
from litmoe.optim.torchao_state import restored
from litmoe.training.loop import train
from litmoe.training.saving import checkpoint_bytes
from litmoe.training.setup import set_up
from litmoe.training.step import gradients, update

MakeConfig = Callable[..., TrainConfig]
IN_BACKWARD = ("--memory.step_in_backward=true", "--train.max_norm=null", "--train.micro_batch_size=8")


def losses(out_dir: Path) -> list[float]:
    with (out_dir / "metrics.csv").open(newline="") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def settings(optimizer: str) -> dict[str, object]:
    return {"optimizer": {"class_path": optimizer, "init_args": {"lr": 0.01}}}


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW8bit", "AdamW4bit", "Muon"])
def test_every_optimizer_learns_and_goes_on_to_the_bit(
    make_config: MakeConfig, tmp_path: Path, optimizer: str
) -> None:
    """All that `first_difference` compares: weights, optimizer, random numbers, metrics."""
    words = ["--precision=bf16-true", "--max-steps=10", "--train.save_interval=6", "--max-seq-length=32"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(make_config(*words, out_dir=str(whole), **settings(optimizer)))
    assert losses(whole)[-1] < losses(whole)[0] - 0.4
    checkpoint.copy(whole / "step-00000006", again / "step-00000006")
    (again / "metrics.csv").write_bytes((whole / "metrics.csv").read_bytes())
    train(make_config(*words, "--resume=auto", out_dir=str(again), **settings(optimizer)))
    assert first_difference(whole, again) is None


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ("torch.optim.AdamW", ()),
        ("AdamW8bit", ("--memory.recompute=blocks", "--precision=bf16-true", "--max-seq-length=32")),
    ],
)
def test_a_step_in_the_backward_is_the_step_after_it(
    make_config: MakeConfig, tmp_path: Path, optimizer: str, words: tuple[str, ...]
) -> None:
    """To the bit, the norm of the gradients in the metrics included, with tied embeddings, which get two."""
    words = (*words, "--train.tie_embeddings=true")
    plain = make_config(*words, "--train.max_norm=null", "--train.micro_batch_size=8", **settings(optimizer))
    during = make_config(*words, *IN_BACKWARD, out_dir=str(tmp_path / "during"), **settings(optimizer))
    train(plain), train(during)
    a, b = (checkpoint.load_model(folder / "final") for folder in (tmp_path / "out", tmp_path / "during"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    with (tmp_path / "during" / "metrics.csv").open(newline="") as file:
        assert all(float(row["grad_norm"]) > 0 for row in csv.DictReader(file))


def test_recomputing_changes_no_bit_of_a_run(make_config: MakeConfig, tmp_path: Path) -> None:
    """Nor what is counted of the experts' load, on which the next step's balance loss stands."""
    for recompute in ("none", "experts", "blocks"):
        words = ["--max-steps=3", f"--memory.recompute={recompute}"]
        train(make_config(*words, out_dir=str(tmp_path / recompute)))
    assert first_difference(tmp_path / "none", tmp_path / "experts") is None
    assert first_difference(tmp_path / "none", tmp_path / "blocks") is None


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW8bit", "AdamW4bit", "Muon"])
def test_the_size_of_a_checkpoint_is_foretold(make_config: MakeConfig, optimizer: str) -> None:
    run = set_up(make_config("--precision=bf16-true", **settings(optimizer)))
    foretold = checkpoint_bytes(run)
    update(run, gradients(run, run.data()), 0.003)
    run.close()
    load_LE = run.state.load_LE  # which is there after the first step
    assert checkpoint_bytes(run) == foretold + load_LE.nbytes + checkpoint.TENSOR_OVERHEAD


def test_a_bad_step_in_the_backward_stops_and_saves_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(*IN_BACKWARD, "--optimizer.init_args.lr=1e30", "--train.save_interval=1")
    with pytest.raises(LitMoEError, match=r"step \d+: the .* is (nan|inf)"):
        train(config)
    for folder in (tmp_path / "out").glob("step-*"):
        assert all(torch.isfinite(tensor).all() for tensor in checkpoint.load_model(folder).values())


def test_rounding_is_said(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """What each optimizer does with bf16 weights, which nobody should have to guess."""
    lines = {}
    for name, words in {
        "AdamW": [],
        "torch.optim.AdamW": ["--memory.stochastic_rounding=false"],
        "SGD": [],
    }.items():
        config = make_config("--precision=bf16-true", "--max-steps=1", *words, **settings(name))
        config.out_dir = config.out_dir / name
        train(config, say=print)
        lines[name] = capsys.readouterr().out
    assert "optimizer  litmoe's AdamW; bf16 weights are rounded stochastically" in lines["AdamW"]
    assert "optimizer  torch's AdamW; bf16 weights are rounded to the nearest" in lines["torch.optim.AdamW"]
    assert "optimizer  torch's SGD; bf16 weights are rounded to the nearest" in lines["SGD"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory.step_in_backward=true"], "excludes train.max_norm: .*set it to null"),
        ([*IN_BACKWARD, "--train.micro_batch_size=4"], "excludes train.micro_batch_size 4 below"),
        ([*IN_BACKWARD, "--devices=2"], "excludes several devices"),
        ([*IN_BACKWARD, "--precision=16-mixed"], "excludes precision 16-mixed"),
        ([*IN_BACKWARD, "--faults.on_non_finite=rollback"], "excludes faults.on_non_finite rollback"),
        ([*IN_BACKWARD, "--faults.on_oom=shrink"], "excludes faults.on_oom shrink"),
        (["--memory.offload_optimizer=true"], "memory.offload_optimizer has no effect"),
        (["--memory.stochastic_rounding=false"], "memory.stochastic_rounding has no effect"),
    ],
)
def test_what_excludes_what(make_config: MakeConfig, words: list[str], message: str) -> None:
    with pytest.raises(LitMoEError, match=message) as error:
        check(make_config(*words))
    assert "\n" not in str(error.value)


def test_what_only_the_run_can_see_is_refused(make_config: MakeConfig) -> None:
    dense = ["--model_config.mlp_class_name=LLaMAMLP", "--model_config.n_expert=0"]
    dense += ["--model_config.n_expert_per_token=0", "--moe.balance=none", "--moe.z_coefficient=0.001"]
    with pytest.raises(LitMoEError, match="recompute: experts has no effect on a dense model"):
        set_up(make_config("--memory.recompute=experts", *dense))
    if not torch.cuda.is_available():
        with pytest.raises(LitMoEError, match="offload_optimizer has no effect on cpu"):
            set_up(make_config("--memory.offload_optimizer=true", "--accelerator=auto"))
    fused = ["--precision=bf16-true", "--optimizer.init_args.fused=true"]
    with pytest.raises(LitMoEError, match=r"init_args.fused: the AdamW that rounds stochastically"):
        set_up(make_config(*fused))
    with pytest.raises(LitMoEError, match=r"matrices has no effect here"):
        set_up(make_config("--optimizer=Muon", "--optimizer.init_args.matrices=null"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_in_host_memory_a_run_goes_on_to_the_bit(
    make_config: MakeConfig, tmp_path: Path, precision: str
) -> None:
    words = [f"--precision={precision}", "--accelerator=cuda", "--devices=1", "--max-steps=20"]
    words += ["--train.save_interval=6", "--memory.offload_optimizer=true"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(make_config(*words, out_dir=str(whole)))
    assert losses(whole)[-1] < losses(whole)[0] - 0.5
    checkpoint.copy(whole / "step-00000006", again / "step-00000006")
    (again / "metrics.csv").write_bytes((whole / "metrics.csv").read_bytes())
    train(make_config(*words, "--resume=auto", out_dir=str(again)))
    assert first_difference(whole, again) is None


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="torchao needs a compiler")
def test_torchaos_optimizers_go_on_to_the_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    """By import path; not compiled, which takes it half a minute. Their state is saved as plain tensors."""
    pytest.importorskip("torchao")
    words = ["--precision=bf16-true", "--max-steps=6", "--train.save_interval=4", "--max-seq-length=32"]
    spec = settings("torchao.optim.AdamW4bit")
    whole, again = tmp_path / "whole", tmp_path / "again"
    with torch.compiler.set_stance("force_eager"):
        train(make_config(*words, out_dir=str(whole), **spec))
        assert losses(whole)[-1] < losses(whole)[0] - 0.1
        checkpoint.copy(whole / "step-00000004", again / "step-00000004")
        (again / "metrics.csv").write_bytes((whole / "metrics.csv").read_bytes())
        train(make_config(*words, "--resume=auto", out_dir=str(again), **spec))
    assert first_difference(whole, again) is None
    states = checkpoint.load_trainer(whole / "final")["optimizer"]["state"].values()
    assert any("tensor_class" in state["exp_avg"] for state in states if isinstance(state["exp_avg"], dict))


def test_what_torchao_needs_is_said(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(**settings("torchao.optim.AdamW8bit"))
    pytest.importorskip("torchao")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        LitMoEError, match=r"needs a C\+\+ compiler, and there is none here: .* use AdamW8bit"
    ):
        set_up(config)


def test_a_checkpoint_names_no_class_of_other_packages() -> None:
    state = {"tensor_class": "os.system", "context": [], "tensors": {}}
    with pytest.raises(ValueError, match=r"os.system is not a tensor of torchao"):
        restored({"state": {0: state}})
