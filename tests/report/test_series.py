"""Reducing a table in one pass: the same points as a plain computation over all rows at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litmoe.report.series import Series


@settings(deadline=None, max_examples=60)
@given(
    n_rows=st.integers(1, 700),
    most=st.integers(1, 40).map(lambda half: 2 * half),
    block=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_equals_a_plain_computation(n_rows: int, most: int, block: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=n_rows)
    values[draw.random(n_rows) < 0.3] = np.nan
    values[draw.random(n_rows) < 0.02] = np.inf
    series = Series(["step", "a", "missing"], most)
    for first in range(0, n_rows, block):
        rows = slice(first, first + block)
        series.add({"step": np.arange(n_rows, dtype=float)[rows], "a": values[rows]})
    assert series.points <= most and (series.width == 1 or series.points > most // 2)
    low, high = series.range("a")
    for point in range(series.points):
        part = values[point * series.width : (point + 1) * series.width]
        part = part[np.isfinite(part)]
        expected = [part.mean(), part.min(), part.max()] if len(part) else [np.nan] * 3
        assert [series.mean("a")[point], low[point], high[point]] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(series.mean("missing")).all()


def test_a_short_table_is_kept_as_it_is() -> None:
    series = Series(["a"], 100)
    values = np.array([0.1, np.nan, 0.3])
    series.add({"a": values})
    np.testing.assert_array_equal(series.mean("a"), values)
    np.testing.assert_array_equal(series.range("a")[0], values)
