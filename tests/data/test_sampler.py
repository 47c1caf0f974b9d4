import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litmoe.data.sampler import permute, windows_of


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(n: int, key: int) -> None:
    assert sorted(permute(np.arange(n), n, key).tolist()) == list(range(n))


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), data=st.data())
def test_an_index_is_permuted_without_the_others(n: int, key: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, n - 1))
    assert permute(np.array([index]), n, key)[0] == permute(np.arange(n), n, key)[index]


@pytest.mark.parametrize("n", [7, 64, 1000, 4097])
def test_every_epoch_visits_every_window_once_in_a_new_order(n: int) -> None:
    order = windows_of(np.arange(3 * n), n, seed=1).reshape(3, n)
    for epoch in order:
        assert sorted(epoch.tolist()) == list(range(n))
    assert len({tuple(epoch) for epoch in order.tolist()}) == 3


def test_seeds_give_different_orders() -> None:
    orders = {tuple(windows_of(np.arange(100), 100, seed).tolist()) for seed in range(50)}
    assert len(orders) == 50


def test_the_shuffle_reaches_over_the_whole_text() -> None:
    n = 10_000
    order = windows_of(np.arange(n), n, seed=3)
    # For a uniform permutation the mean distance from home, and between neighbours, is n/3.
    assert abs(np.abs(order - np.arange(n)).mean() / n - 1 / 3) < 0.02
    assert abs(np.abs(np.diff(order)).mean() / n - 1 / 3) < 0.02
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05


def test_small_permutations_are_close_to_uniform() -> None:
    """All 24 orders of four windows occur about equally often over seeds (chi-squared, 23 degrees)."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        order = tuple(windows_of(np.arange(4), 4, seed).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 60


def test_the_order_is_the_same_on_every_machine() -> None:
    assert windows_of(np.arange(10), 10, seed=42).tolist() == [6, 1, 7, 9, 8, 5, 0, 2, 3, 4]
