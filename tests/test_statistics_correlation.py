"""Pearson's r and its intervals against hand-computed cases and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from m2rl_core.statistics.correlation import correlation, crossed_correlation, pearson


def test_pearson_by_hand() -> None:
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert pearson([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    noise = np.random.default_rng(1).normal(size=(2, 50))
    assert pearson(noise[0], noise[1]) == pytest.approx(float(np.asarray(np.corrcoef(noise))[0, 1]))


@pytest.mark.parametrize(("x", "y"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([0.1] * 7, [0.3] * 7)])
def test_nothing_that_varies_has_no_correlation(x: list[float], y: list[float]) -> None:
    assert math.isnan(pearson(x, y))
    assert math.isnan(correlation(x, y).value)


def test_fishers_interval_by_hand() -> None:
    """r = 0.8 of four points: tanh(1.0986 ± 1.96)."""
    found = correlation([1, 2, 3, 4], [1, 3, 2, 4])
    assert (found.low, found.high) == pytest.approx((math.tanh(1.098612 - 1.959964), math.tanh(1.098612 + 1.959964)))
    assert math.isnan(correlation([1, 2, 3], [1, 3, 2]).low)
    perfect = correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert perfect.low < perfect.value <= perfect.high


def test_fishers_interval_covers() -> None:
    rng = np.random.default_rng(2)
    true = 0.5
    inside = 0
    for _ in range(400):
        x = rng.normal(size=9)
        y = true * x + math.sqrt(1 - true**2) * rng.normal(size=9)
        found = correlation(list(x), list(y))
        inside += found.low <= true <= found.high
    assert 0.92 < inside / 400 < 0.98


def test_cells_of_a_table() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 5))
    assert crossed_correlation(x, 2 * x + 1).value == pytest.approx(1.0)
    y = rng.normal(size=(5, 5))
    found = crossed_correlation(x, y)
    assert found.value == pytest.approx(pearson(x.ravel(), y.ravel()))
    assert found.low <= found.value <= found.high
    assert found == crossed_correlation(x, y)


def test_missing_cells_are_left_out_and_small_tables_have_no_interval() -> None:
    x = np.arange(9.0).reshape(3, 3)
    y = x.copy()
    y[0, 0] = math.nan
    assert crossed_correlation(x, y).value == pytest.approx(1.0)
    assert math.isnan(crossed_correlation(x[:2], y[:2]).low)


def test_dependent_cells_make_a_wider_interval() -> None:
    """All spread lies between columns: 25 cells are hardly more than 5 points."""
    rng = np.random.default_rng(4)
    columns, scores = rng.normal(size=(2, 5))
    x = columns[None] + 0.01 * rng.normal(size=(5, 5))
    y = scores[None] + 0.01 * rng.normal(size=(5, 5))
    crossed, naive = crossed_correlation(x, y), correlation(list(x.ravel()), list(y.ravel()))
    assert crossed.high - crossed.low > 1.5 * (naive.high - naive.low)
