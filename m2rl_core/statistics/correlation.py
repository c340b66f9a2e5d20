"""Pearson correlations with 95% intervals, of single points and of the cells of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from m2rl_core.seeding import derive
from m2rl_core.statistics.scores import RESAMPLES, Estimate, summarise

__all__ = ["correlation", "crossed_correlation", "pearson"]

Array = NDArray[np.float64]

_NORMAL = NormalDist()


def pearson(x: Sequence[float] | Array, y: Sequence[float] | Array) -> float:
    """Pearson's r; NaN for less than two points, or where one side does not vary."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(_weighted(a[None], b[None], np.ones((1, a.size)))[0]) if a.size else math.nan


def correlation(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Pearson's r of independent points with the interval of Fisher's z; no interval for less than four points.

    Source: Fisher, Metron 1 (1921), 3–32: atanh(r) is close to normal with standard error 1 / √(n − 3).
    """
    r, n = pearson(x, y), len(x)
    if n < 4 or not math.isfinite(r):
        return Estimate(r, math.nan, math.nan, math.nan)
    z, error = math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12)), 1 / math.sqrt(n - 3)
    reach = _NORMAL.inv_cdf(0.975) * error
    return Estimate(r, min(r, math.tanh(z - reach)), max(r, math.tanh(z + reach)), (1 - r * r) * error)


def crossed_correlation(x: Array, y: Array) -> Estimate:
    """Pearson's r over the cells of two tables of one shape, [rows, columns]; NaN marks a missing cell.

    Cells that share a row or a column are not independent, so rows and columns are resampled apart, which errs on the
    wide side. The interval is widened where it would leave the statistic out; no interval below three rows or columns.

    Source: Owen, Annals of Applied Statistics 1 (2007), 386–411, the "pigeonhole" bootstrap.
    """
    known = np.isfinite(x) & np.isfinite(y)
    r = pearson(x[known], y[known])
    if min(x.shape) < 3 or not math.isfinite(r):
        return Estimate(r, math.nan, math.nan, math.nan)
    rows, columns = (_counts(what, n) for what, n in zip(("rows", "columns"), x.shape, strict=True))
    weights = np.einsum("br,bc->brc", rows, columns)[:, known]
    drawn = summarise(r, _weighted(x[known][None], y[known][None], weights))
    return Estimate(r, min(r, drawn.low), max(r, drawn.high), drawn.error)


def _counts(what: str, n: int) -> Array:
    """[RESAMPLES, n] how often each of ``n`` is drawn."""
    rng = np.random.default_rng(derive("pigeonhole", what, n))
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def _weighted(x: Array, y: Array, weights: Array) -> Array:
    """r under every row of ``weights`` [B, n]; NaN where one side does not vary."""
    total = weights.sum(1, keepdims=True).clip(1.0)  # a resample may hold no known cell
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    both = np.sqrt((weights * x * x).sum(1) * (weights * y * y).sum(1))
    out: Array = np.full(len(weights), np.nan)
    # what rounding leaves of equal values is no spread
    least = 1e-24 * (weights * (1 + abs(x)) ** 2).sum(1)
    np.divide((weights * x * y).sum(1), both, out=out, where=both > least)
    return out.clip(-1.0, 1.0)
