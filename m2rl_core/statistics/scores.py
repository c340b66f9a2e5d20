"""How sure a score is: Avg@k, pass@k, and a paired hierarchical bootstrap over seeds and items.

One model's rewards on one suite are a :class:`Grid`, [seeds, items]: an *item* is a prompt, a *seed* one training run
of the same arm. Scores and differences are in points (0 to 100). Two models are compared on the seeds and items that
both have (:func:`pair`), so that what is hard for both cancels; "better" is said only where the 95% interval of the
paired difference excludes zero.

The resamples draw one fewer seed and one fewer item than there are (Rao and Wu, JASA 83, 1988), which makes the
bootstrap variance of a mean unbiased and matters with two or three seeds. All seeds see the same resampled items
(Owen, Annals of Applied Statistics 1, 2007), because they answer the same prompts. One seed gives an interval over
items alone: it does not speak about another training run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from m2rl_core.seeding import derive

__all__ = [
    "RESAMPLES",
    "Estimate",
    "Grid",
    "best",
    "crossfit",
    "difference",
    "draws",
    "estimate",
    "grid",
    "pair",
    "pass_at_k",
    "pooled",
    "share",
    "summarise",
]

Array = NDArray[np.float64]

RESAMPLES = 2000
_POWER = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
"""Standard errors that a two-sided 5% test finds with 80% power."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Rewards of one model on one suite."""

    seeds: tuple[int, ...]
    items: tuple[str, ...]
    points: Array
    """[seeds, items]: 100 × the mean reward of the item's samples; NaN where none has a verdict."""
    weights: Array
    """[items]: share of each item in the suite's score, in any unit."""

    @property
    def score(self) -> float:
        """Avg@k in points: the weighted mean over items, then the mean over seeds."""
        return float(_ratio(_ratio(self.points, self.weights), np.ones(len(self.seeds))))

    def take(self, items: Sequence[int]) -> Grid:
        """The same grid with the items at these positions."""
        at = np.asarray(items, dtype=np.intp)
        return Grid(self.seeds, tuple(self.items[i] for i in at), self.points[:, at], self.weights[at])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95% interval; ``low`` and ``high`` are NaN where nothing could be resampled."""

    value: float
    low: float
    high: float
    error: float
    """Standard error: standard deviation over the resamples."""

    @property
    def decided(self) -> bool:
        """True where the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def detectable(self) -> float:
        """Minimum detectable difference: the true difference that such data would find in 4 of 5 repetitions."""
        return _POWER * self.error


def pass_at_k(right: int, n: int, k: int) -> float:
    """Unbiased estimate that one of ``k`` samples is right, from ``right`` of ``n``.

    Source: Chen et al., https://arxiv.org/abs/2107.03374, section 2.1.

    Raises:
        ValueError: unless 0 ≤ right ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= right <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= right <= n and 1 <= k <= n, found right={right}, n={n}, k={k}")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def grid(rewards: Mapping[int, Iterable[tuple[str, float, float | None]]]) -> Grid:
    """The grid of samples ``(item, weight, reward)`` per seed; a reward of ``None`` is a failed verdict, left out.

    Items stand in the order of their first appearance; an item that a seed lacks is NaN there.
    """
    weights: dict[str, float] = {}
    sums: dict[tuple[int, str], tuple[float, int]] = {}
    for seed, samples in rewards.items():
        for item, weight, reward in samples:
            weights.setdefault(item, weight)
            if reward is not None:
                total, n = sums.get((seed, item), (0.0, 0))
                sums[seed, item] = (total + reward, n + 1)
    points = np.full((len(rewards), len(weights)), np.nan)
    column = {item: i for i, item in enumerate(weights)}
    row = {seed: i for i, seed in enumerate(rewards)}
    for (seed, item), (total, n) in sums.items():
        points[row[seed], column[item]] = 100 * total / n
    return Grid(tuple(rewards), tuple(weights), points, np.array(list(weights.values()), dtype=np.float64))


def pair(left: Grid, right: Grid) -> Grid:
    """``left − right`` on the seeds and items that both have; NaN where either has no verdict."""
    seeds = [s for s in left.seeds if s in right.seeds]
    here = {item: i for i, item in enumerate(right.items)}
    shared = [(i, here[item]) for i, item in enumerate(left.items) if item in here]
    a = left.take([i for i, _ in shared])
    b = right.take([j for _, j in shared])
    points = a.points[[left.seeds.index(s) for s in seeds]] - b.points[[right.seeds.index(s) for s in seeds]]
    return Grid(tuple(seeds), a.items, points, a.weights)


def estimate(grids: Sequence[Grid]) -> Estimate:
    """The mean of the suites' scores with its interval. Grids from :func:`pair` give a paired difference."""
    return summarise(float(np.mean([g.score for g in grids])), draws(grids))


def difference(left: Sequence[Grid], right: Sequence[Grid]) -> Estimate:
    """``left − right``, the mean over suites in the same order, paired by seed and item."""
    return estimate([pair(a, b) for a, b in zip(left, right, strict=True)])


def share(part: Sequence[Grid], whole: Sequence[Grid]) -> Estimate:
    """``part / whole`` with its interval; both are resampled alike, so they must have the same seeds and items.

    Raises:
        ValueError: grids of different shapes.
    """
    if [g.points.shape for g in part] != [g.points.shape for g in whole]:
        raise ValueError("a share needs grids with the same seeds and items")
    value = np.mean([g.score for g in part]) / np.mean([g.score for g in whole])
    with np.errstate(divide="ignore", invalid="ignore"):
        return summarise(float(value), draws(part) / draws(whole))


def pooled(found: Sequence[Estimate]) -> Estimate:
    """The mean of one estimate per seed, with an interval over seeds and items.

    For estimates whose items are not known any more. Seeds are resampled as in :func:`draws`; within a seed, the items
    move its value as far as its own interval says, to either side, and all seeds at once, since they see the same
    items. Where intervals are unknown, the result's covers the choice of seeds alone. A single estimate stays as it is.
    """
    if len(found) == 1:
        return found[0]
    normal = np.random.default_rng(derive("bootstrap", "estimates")).standard_normal(RESAMPLES)
    below, above = _reaches(found)
    values = np.array([e.value for e in found])
    moved = values + np.where(normal[:, None] < 0, below, above) * normal[:, None]
    return summarise(float(values.mean()), _ratio(moved, _resample("seeds", len(found))))


def _reaches(found: Sequence[Estimate]) -> Array:
    """[2, estimates]: standard deviations below and above, from the intervals; 0 where there is none."""
    sides = np.array([[e.value - e.low for e in found], [e.high - e.value for e in found]])
    known: Array = np.nan_to_num(sides / NormalDist().inv_cdf(0.975))
    return known


def summarise(value: float, drawn: Array) -> Estimate:
    """``value`` with the percentile interval and the standard deviation of its resamples."""
    finite = drawn[np.isfinite(drawn)]
    if finite.size < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value, float(low), float(high), float(np.std(finite, ddof=1)))


def draws(grids: Sequence[Grid]) -> Array:
    """[RESAMPLES] bootstrap values of the mean of the suites' scores; empty where there is nothing to resample.

    A pure function: the same shapes are resampled alike, whatever the rewards. Seeds that not all grids have are
    left out, because a seed is drawn for all suites at once.
    """
    seeds = [s for s in grids[0].seeds if all(s in g.seeds for g in grids)] if grids else []
    if not seeds or any(len(g.items) < 2 for g in grids):
        return np.empty(0)
    seed_counts = _resample("seeds", len(seeds))
    total = np.zeros(RESAMPLES)
    for index, one in enumerate(grids):
        rows = one.points[[one.seeds.index(s) for s in seeds]]
        total += _ratio(_item_draws(rows, one.weights, _resample(f"items {index}", len(one.items))), seed_counts)
    return total / len(grids)


def crossfit(candidates: Sequence[Sequence[Grid]]) -> list[Grid]:
    """The best of several models without the bias of choosing: each half of the items is scored by the model that is
    best on the other half.

    Args:
        candidates: per model one grid per suite, all in the same order and with the same items.

    Returns:
        One grid per suite, to be used like a single model's. An item's half is a hash of its name.
    """
    halves = [_halves(g.items) for g in candidates[0]]
    chosen = [replace(g, points=g.points.copy()) for g in candidates[0]]
    for half in (0, 1):
        seen = [[g.take(at[half]) for g, at in zip(model, halves, strict=True)] for model in candidates]
        winner = candidates[best(seen)]
        for own, suite, at in zip(winner, chosen, halves, strict=True):
            suite.points[:, at[1 - half]] = own.points[:, at[1 - half]]
    return chosen


def best(candidates: Sequence[Sequence[Grid]]) -> int:
    """Index of the model with the highest mean of its suites' scores; the first of equals."""
    return int(np.argmax([np.mean([g.score for g in model]) for model in candidates]))


def _halves(items: Sequence[str]) -> tuple[list[int], list[int]]:
    """Positions of the items in either half."""
    second = {i for i, item in enumerate(items) if derive("half", item) % 2}
    return [i for i in range(len(items)) if i not in second], sorted(second)


def _item_draws(points: Array, weights: Array, counts: Array) -> Array:
    """[RESAMPLES, seeds] scores under resampled items, the same items for every seed."""
    known = np.isfinite(points)
    return _divide(counts @ (np.where(known, points, 0.0) * weights).T, counts @ (known * weights).T)


@lru_cache(maxsize=32)
def _resample(what: str, n: int) -> Array:
    """[RESAMPLES, n] how often each of ``n`` units is drawn in resamples of n − 1 (of 1 where there is but one)."""
    rng = np.random.default_rng(derive("bootstrap", what, n))
    drawn = rng.integers(n, size=(RESAMPLES, max(1, n - 1))) + n * np.arange(RESAMPLES)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(np.float64)


def _ratio(values: Array, weights: Array) -> Array:
    """Weighted mean along the last axis, over what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    return _divide((np.where(known, values, 0.0) * weights).sum(-1), (known * weights).sum(-1))


def _divide(numerator: Array, denominator: Array) -> Array:
    """NaN instead of a warning where the denominator is zero."""
    out: Array = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
