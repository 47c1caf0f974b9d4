import itertools
import math

import pytest
import torch

from litmoe.config import ScheduleArgs, TrainArgs
from litmoe.errors import LitMoEError
from litmoe.training.schedule import Horizon, horizon, learning_rate


def rates(name: str, steps: int = 100, warmup: int = 10, **kwargs: float) -> list[float]:
    plan = Horizon(steps, warmup, tokens_per_step=1)
    schedule = ScheduleArgs(name=name, **kwargs)  # type: ignore[arg-type]
    return [learning_rate(step, 1.0, 0.1, plan, schedule) for step in range(steps)]


@pytest.mark.parametrize("name", ["cosine", "constant", "wsd"])
def test_warmup_is_linear_and_wastes_no_step(name: str) -> None:
    assert rates(name)[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])


def test_cosine_agrees_with_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1)
    expected = []
    for _ in range(90):
        optimizer.step()
        scheduler.step()
        expected.append(scheduler.get_last_lr()[0])
    assert rates("cosine")[10:] == pytest.approx(expected)


def test_ends_at_min_lr_and_constant_never_decays() -> None:
    assert rates("cosine")[-1] == pytest.approx(0.1)
    assert rates("wsd")[-1] == pytest.approx(0.1)
    assert set(rates("constant")[10:]) == {1.0}


def test_wsd_is_stable_then_linear() -> None:
    lr = rates("wsd", decay_fraction=0.2)
    assert lr[10:80] == [1.0] * 70
    assert [a - b for a, b in itertools.pairwise(lr[80:])] == pytest.approx([0.9 / 20] * 19)


def test_horizon_takes_the_nearest_end() -> None:
    train = TrainArgs(global_batch_size=8, max_tokens=320_000, lr_warmup_steps=5)
    assert horizon(train, 2048, n_windows=None) == Horizon(19, 5, 16384)
    train = TrainArgs(global_batch_size=8, max_tokens=320_000, max_steps=4, lr_warmup_steps=5)
    assert horizon(train, 2048, n_windows=None) == Horizon(4, 4, 16384)
    train = TrainArgs(global_batch_size=8, epochs=3, lr_warmup_fraction=0.5)
    assert horizon(train, 64, n_windows=21) == Horizon(7, math.ceil(0.5 * 21 / 8), 512)


def test_a_run_without_a_step_is_refused() -> None:
    with pytest.raises(LitMoEError, match="before its first step"):
        horizon(TrainArgs(global_batch_size=8, max_tokens=100), 64, None)
    with pytest.raises(LitMoEError, match="knows its length"):
        horizon(TrainArgs(epochs=1), 64, None)
