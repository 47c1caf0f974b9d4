"""The plan of a run: what fits where, what makes it fit, and what it takes on the disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from litmoe.cli.main import main
from litmoe.cli.show_plan import show
from litmoe.config import TrainConfig
from litmoe.config.load import load_train_config
from litmoe.diagnostics.devices import Device, n_bytes, other_device
from litmoe.diagnostics.fit import applied, changes, fit, settings
from litmoe.diagnostics.plan import MARGIN, Plan, make_plan
from litmoe.errors import ConfigError, LitMoEError
from litmoe.messages import readable
from litmoe.training.loop import train


def _planned(config: TrainConfig, n_bytes: int) -> Plan:
    return make_plan(config, Device("a small GPU", "cuda", n_bytes, is_here=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6GB", 6e9), ("5.5 GiB", 5.5 * 2**30), ("800MB", 8e8), ("6", 6e9), ("6g", 6e9)],
)
def test_amounts_of_memory(text: str, expected: float) -> None:
    assert n_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "six", "0GB", "6TB", "-1GB"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(LitMoEError, match="expected an amount"):
        n_bytes(text)


def test_cards_by_name() -> None:
    assert other_device(None, "NVIDIA GeForce RTX 3060").n_bytes == 12 * 10**9
    assert other_device(None, "NVIDIA GeForce RTX 3060 Laptop GPU").n_bytes == 6 * 10**9
    assert other_device("5GB", "anything").n_bytes == 5 * 10**9
    with pytest.raises(LitMoEError, match="--vram"):
        other_device(None, "Voodoo 2")


def test_all_changes_that_make_it_fit_are_needed(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    needed = _planned(config, 10**12).memory.total
    device_bytes = int(needed * (1 + MARGIN)) - 600_000
    plan = _planned(config, device_bytes)
    assert plan.fits is False
    taken, fitting = fit(config, lambda changed: _planned(changed, device_bytes), list(changes(plan)))
    assert fitting.fits
    assert taken
    for left_out in taken:
        others = applied([change for change in taken if change is not left_out], config)
        assert not _planned(others, device_bytes).fits
    assert applied(taken, config) == fitting.config
    assert settings(taken)


def test_what_a_plan_may_be_off_by_must_be_free(
    make_config: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    needed = _planned(make_config(), 10**12).memory.total
    for share, verdict in ((1.06, "B: fits"), (1.04, "may not fit"), (0.99, "does not fit")):
        plan = _planned(make_config(), int(share * needed))
        assert plan.fits == (share == 1.06)
        show(plan, print)
        assert verdict in capsys.readouterr().out


def test_nothing_makes_it_fit(make_config: Callable[..., TrainConfig]) -> None:
    plan = _planned(make_config(), 1000)
    taken, fitting = fit(plan.config, lambda config: _planned(config, 1000), list(changes(plan))[:1])
    assert fitting.fits is False
    assert len(taken) == 1


def test_the_size_of_a_checkpoint(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config("--max-steps=1", "--train.save_interval=null")
    config.model_config = dict(config.model_config, n_embd=128)  # type: ignore[arg-type]
    foreseen = _planned(config, 10**12)
    folder = train(config).checkpoint
    files = [folder / name for name in ("lit_model.pth", "trainer_state.pth")]
    assert foreseen.checkpoint_bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.03)
    assert foreseen.checkpoints == 1


def test_a_batch_that_does_not_divide_is_refused_with_its_numbers(
    make_config: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """12 windows by 4 on 2 devices, and what is tried to make a run fit divides too."""
    device = Device("a small GPU", "cuda", 10**12, count=2, is_here=False)
    config = make_config("--train.global_batch_size=12", "--devices=auto")
    with pytest.raises(ConfigError, match="12 is not a multiple of 8 = "):
        make_plan(config, device)
    plan = make_plan(make_config("--train.global_batch_size=8", "--devices=auto"), device)
    sizes = [change.settings["train"] for change in changes(plan) if "train" in change.settings]
    assert [size["micro_batch_size"] for size in sizes if "micro_batch_size" in size] == [2, 1]
    words = ["--preset=tiny", "--global-batch-size=6", "--micro-batch-size=3", "--devices=4"]
    for command in (["plan", "--vram=6GB"], ["bench", "--accelerator=cpu"]):
        assert main([*command, *words]) == 2
        assert "6 is not a multiple of 12" in capsys.readouterr().err


def test_a_plan_says_where_the_router_cannot_learn(
    make_config: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("--model_config.n_expert_per_token=1")
    show(_planned(config, 10**12), print)
    assert "note: n_expert_per_token is 1" in capsys.readouterr().out
    assert _planned(make_config(), 10**12).advice == []


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it does not fit and what makes it, and writes that."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fit.yaml"
    words = ["plan", "--preset", "tiny", "--micro_batch_size=4", "--vram"]
    assert main([*words, "660MB", "--fit", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "of 660 MB: does not fit" in printed
    assert "of 660 MB: fits" in printed
    assert load_train_config(file).train.max_tokens == 700_000
    assert main([*words, "nothing"]) == 2
    assert "expected an amount of memory" in capsys.readouterr().err


def test_measured_on_this_device(make_config: Callable[..., TrainConfig]) -> None:
    """The allocator's peak, of a real step on random tokens, beside the plan's."""
    from litmoe.diagnostics.measure import measure

    config = make_config()
    measured = measure(config)
    plan = make_plan(config, Device("this CPU", "cpu", None))
    assert measured.peak_bytes == pytest.approx(plan.allocated, rel=0.05), readable(plan.allocated)
    assert measured.tokens_per_second > 0
    assert plan.fits is None
