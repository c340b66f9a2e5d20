"""Statistics against hand-computed cases and naive versions."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from m2rl_core.statistics.scores import (
    Estimate,
    Grid,
    best,
    crossfit,
    difference,
    draws,
    estimate,
    grid,
    pair,
    pass_at_k,
    pooled,
    share,
)


def matrix(points: list[list[float]], weights: list[float] | None = None) -> Grid:
    """A grid with items ``0, 1, …`` and seeds ``0, 1, …``."""
    array = np.array(points, dtype=np.float64)
    seeds, items = array.shape
    return Grid(tuple(range(seeds)), tuple(map(str, range(items))), array, np.array(weights or [1.0] * items))


def noisy(rng: np.random.Generator, shape: tuple[int, int], mean: float = 50.0) -> Grid:
    return matrix((mean + 20 * rng.standard_normal(shape)).tolist())


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_avg_at_k_weighs_prompts_and_leaves_failed_verdicts_out() -> None:
    samples = [("a", 1.0, 1.0), ("a", 1.0, 0.0), ("b", 3.0, 1.0), ("b", 3.0, None), ("c", 9.0, None), ("c", 9.0, None)]
    one = grid({17: samples})
    assert one.items == ("a", "b", "c")
    assert np.allclose(one.points, [[50.0, 100.0, np.nan]], equal_nan=True)
    assert one.score == pytest.approx((1 * 50 + 3 * 100) / 4)


def test_score_is_the_mean_over_seeds_of_each_seeds_own_weighted_mean() -> None:
    one = matrix([[0.0, 100.0, 100.0], [50.0, math.nan, 0.0]], [1.0, 1.0, 2.0])
    assert one.score == pytest.approx((75.0 + 50.0 / 3) / 2)


@pytest.mark.parametrize(("right", "n", "k"), [(r, 5, k) for r in range(6) for k in range(1, 6)])
def test_pass_at_k_equals_counting_all_subsets(right: int, n: int, k: int) -> None:
    outcomes = [1] * right + [0] * (n - right)
    naive = [max(subset) for subset in itertools.combinations(outcomes, k)]
    assert pass_at_k(right, n, k) == pytest.approx(sum(naive) / len(naive))


@pytest.mark.parametrize(("right", "n", "k"), [(3, 2, 1), (-1, 2, 1), (1, 2, 0), (1, 2, 3)])
def test_pass_at_k_refuses_impossible_counts(right: int, n: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"right={right}, n={n}, k={k}"):
        pass_at_k(right, n, k)


# ── the bootstrap ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_draws_agree_with_a_naive_bootstrap() -> None:
    rng = np.random.default_rng(3)
    one = Grid((1, 2, 3), tuple(map(str, range(12))), rng.uniform(0, 100, (3, 12)), rng.uniform(1, 3, 12))
    naive, chance = [], random.Random(0)
    for _ in range(6000):
        items = chance.choices(range(12), k=11)
        seeds = chance.choices(range(3), k=2)
        weights = one.weights[items]
        naive.append(np.mean([np.average(one.points[s, items], weights=weights) for s in seeds]))
    drawn = draws([one])
    assert drawn.mean() == pytest.approx(np.mean(naive), abs=0.6)
    assert np.std(drawn) == pytest.approx(np.std(naive), rel=0.05)
    assert np.percentile(drawn, [2.5, 97.5]) == pytest.approx(np.percentile(naive, [2.5, 97.5]), abs=1.5)


def test_one_seeds_error_is_the_textbook_standard_error_of_a_mean() -> None:
    one = noisy(np.random.default_rng(1), (1, 400))
    textbook = np.std(one.points, ddof=1) / math.sqrt(400)
    found = estimate([one])
    assert found.value == pytest.approx(float(one.points.mean()))
    assert found.error == pytest.approx(textbook, rel=0.05)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * textbook, rel=0.06)
    assert found.detectable == pytest.approx(2.8016 * found.error, rel=1e-4)


def test_error_of_several_seeds_is_unbiased_where_only_seeds_differ() -> None:
    """Items are all alike, so that the score is the mean of three numbers."""
    one = matrix([[10.0] * 50, [16.0] * 50, [13.0] * 50])
    assert estimate([one]).error == pytest.approx(np.std([10, 16, 13], ddof=1) / math.sqrt(3), rel=0.05)


def test_the_mean_of_suites_draws_a_seed_for_all_suites_at_once() -> None:
    """A seed that is high on one suite and equally low on the other leaves the mean certain."""
    up, down = matrix([[0.0] * 9, [100.0] * 9]), matrix([[100.0] * 9, [0.0] * 9])
    together = estimate([up, down])
    assert (together.low, together.value, together.high) == (50.0, 50.0, 50.0)
    assert estimate([up]).error > 40


def test_draws_are_deterministic_and_depend_on_shapes_alone() -> None:
    one = noisy(np.random.default_rng(5), (2, 30))
    twice = Grid(one.seeds, one.items, 2 * one.points, one.weights)
    assert np.array_equal(draws([one]), draws([one]))
    assert np.allclose(2 * draws([one]), draws([twice]))


@pytest.mark.parametrize("one", [matrix([[40.0]]), matrix([[math.nan, math.nan]]), grid({1: []}), grid({})])
def test_nothing_to_resample_gives_no_interval_and_decides_nothing(one: Grid) -> None:
    found = estimate([one])
    assert math.isnan(found.low)
    assert not found.decided


# ── comparisons ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pairing_cancels_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(7)
    hard = rng.uniform(0, 90, (1, 300))
    left = matrix((hard + 5 + rng.normal(0, 3, hard.shape)).tolist())
    right = matrix(hard.tolist())
    margin = difference([left], [right])
    assert margin.decided
    assert margin.low > 4
    assert margin.error < 0.2 < estimate([left]).error


def test_pairing_uses_shared_seeds_and_items_only() -> None:
    nan = math.nan
    left = Grid((1, 2), ("a", "b", "c"), np.array([[10.0, 20.0, nan], [1.0, 2.0, 3.0]]), np.array([1.0, 3.0, 1.0]))
    right = Grid((2, 1), ("c", "b", "a"), np.array([[0.0, 0.0, 0.0], [5.0, 6.0, 7.0]]), np.array([1.0, 3.0, 1.0]))
    both = pair(left, Grid((1,), ("c", "b"), right.points[1:, :2], right.weights[:2]))
    assert (both.seeds, both.items) == ((1,), ("b", "c"))
    assert np.allclose(both.points, [[14.0, nan]], equal_nan=True)
    assert pair(left, right).points[:, 0].tolist() == [3.0, 1.0]
    assert both.score == pytest.approx(14.0)


def test_equal_models_are_undecided() -> None:
    rng = np.random.default_rng(11)
    left, right = noisy(rng, (3, 100)), noisy(rng, (3, 100))
    margin = difference([left], [right])
    assert margin.low < 0 < margin.high
    assert not margin.decided
    assert difference([left], [left]).value == 0.0


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (3, 2.0), (5, 4.0)])
def test_intervals_cover_the_truth(seeds: int, spread: float) -> None:
    """Of 150 studies without a difference about 95% must include zero, also where training runs differ."""
    rng = np.random.default_rng(13)
    covered = 0
    for _ in range(150):
        shape = (seeds, 60)
        points = (
            spread * rng.standard_normal((seeds, 1)) + 8 * rng.standard_normal(60) + 15 * rng.standard_normal(shape)
        )
        found = estimate([matrix(points.tolist())])
        covered += found.low <= 0 <= found.high
    assert covered >= 135


def test_share_of_a_gain() -> None:
    rng = np.random.default_rng(17)
    whole = noisy(rng, (2, 200), mean=20.0)
    half = Grid(whole.seeds, whole.items, whole.points / 2, whole.weights)
    kept = share([half], [whole])
    assert kept.value == pytest.approx(0.5)
    assert (kept.low, kept.high) == pytest.approx((0.5, 0.5))
    with pytest.raises(ValueError, match="same seeds and items"):
        share([half], [matrix([[1.0, 2.0]])])


def test_choosing_the_best_of_equals_gains_nothing_when_crossfitted() -> None:
    rng = np.random.default_rng(19)
    naive, honest = [], []
    for _ in range(60):
        models = [[matrix(rng.uniform(0, 100, (1, 40)).tolist())] for _ in range(6)]
        naive.append(models[best(models)][0].score)
        honest.append(crossfit(models)[0].score)
    assert np.mean(naive) > 54
    assert np.mean(honest) == pytest.approx(50, abs=1.5)


def test_crossfit_of_a_clear_winner_or_a_single_model_is_that_model() -> None:
    rng = np.random.default_rng(23)
    low, high = [noisy(rng, (2, 30), 20.0)], [noisy(rng, (2, 30), 80.0)]
    assert np.array_equal(crossfit([low, high])[0].points, high[0].points)
    assert np.array_equal(crossfit([low])[0].points, low[0].points)


# ── estimates of several seeds ───────────────────────────────────────────────────────────────────────────────────────


def sure(value: float) -> Estimate:
    """An estimate without an interval of its own."""
    return Estimate(value, math.nan, math.nan, math.nan)


def test_two_seeds_without_items_span_both_values() -> None:
    """Resamples of one seed of two give one value or the other: standard deviation 1, that of the mean of two."""
    found = pooled([sure(1.0), sure(3.0)])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.error == pytest.approx(1.0, abs=0.01)


def test_the_error_over_seeds_is_the_textbook_one() -> None:
    """0, 3 and 6: variance 9 over 3 seeds."""
    assert pooled([sure(0.0), sure(3.0), sure(6.0)]).error == pytest.approx(math.sqrt(3), rel=0.03)


def test_equal_seeds_keep_the_interval_of_their_common_items() -> None:
    one = Estimate(2.0, 1.0, 6.0, 1.5)
    found = pooled([one, one, one])
    assert found.value == 2.0
    assert found.low == pytest.approx(1.0, abs=0.1)
    assert found.high == pytest.approx(6.0, abs=0.3)


def test_variance_over_seeds_and_over_items_add_up() -> None:
    """Of 0 and 2 with standard errors of 1 each: 1 over seeds, 1 over items."""
    reach = 1.959964
    found = pooled([Estimate(v, v - reach, v + reach, 1.0) for v in (0.0, 2.0)])
    assert found.error == pytest.approx(math.sqrt(2), rel=0.05)


def test_a_single_estimate_stays_as_it_is() -> None:
    one = Estimate(2.0, 1.0, 6.0, 1.5)
    assert pooled([one]) is one


def test_pooled_estimates_agree_with_pooled_grids() -> None:
    """The mean of seeds' own estimates has about the interval that their items give it."""
    rng = np.random.default_rng(5)
    whole = noisy(rng, (3, 200))
    whole = Grid(whole.seeds, whole.items, whole.points + np.array([[-6.0], [0.0], [7.0]]), whole.weights)
    each = [Grid((s,), whole.items, whole.points[i : i + 1], whole.weights) for i, s in enumerate(whole.seeds)]
    exact, found = estimate([whole]), pooled([estimate([one]) for one in each])
    assert found.value == pytest.approx(exact.value)
    assert found.error == pytest.approx(exact.error, rel=0.15)
