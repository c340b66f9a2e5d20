"""All verdicts of all models, and which of them mean something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from m2rl_analyzer_self_verification.answers import Evaluation
from m2rl_analyzer_self_verification.judging import Judged, Mode
from m2rl_core.statistics.correlation import correlation
from m2rl_core.statistics.scores import Estimate, Grid, difference, estimate, pair
from m2rl_core.types import Way

__all__ = ["Evidence", "Gap", "finite"]

NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan)


class Gap(NamedTuple):
    """A difference of two judging scores over the suites where both mean something."""

    estimate: Estimate
    suites: list[str]


@dataclass(frozen=True)
class Evidence:
    """What was measured."""

    suites: Sequence[str]
    """Judged by every model."""
    evaluated: Mapping[str, Mapping[str, Evaluation]]
    """Model → suite → answers and generation score."""
    judged: Mapping[str, Mapping[tuple[str, Mode], Judged]]
    """Model → (suite, mode) → verdicts."""
    start: str | None
    """The model that reinforcement learning departs from, if it was judged."""
    arms: Mapping[str, Way]
    experts: Mapping[str, str]
    least: float
    """Balanced accuracy of :attr:`start` from which on judging is measurable."""

    @property
    def models(self) -> list[str]:
        return list(self.judged)

    def sort(self, model: str) -> str:
        """``start``, ``expert``, ``mix``, ``merge``, ``distil`` or ``other``."""
        if model == self.start:
            return "start"
        return self.arms.get(model) or ("expert" if model in self.experts.values() else "other")

    def domain(self, suite: str) -> str:
        return self.evaluated[self.models[0]][suite].domain

    def measurable(self, suite: str, mode: Mode) -> bool:
        """Whether the start can judge at all. It cannot where it only gives answers of one sort, nor is it known
        without a start, which then counts as able."""
        return self.start is None or self.judged[self.start][suite, mode].balanced_accuracy >= self.least

    def able(self, mode: Mode) -> list[str]:
        """Suites where judging is measurable."""
        return [suite for suite in self.suites if self.measurable(suite, mode)]

    def generation(self, model: str, suites: Sequence[str]) -> Estimate:
        """The mean over suites; NaN without any."""
        return estimate([self.evaluated[model][s].generation for s in suites]) if suites else NOTHING

    def grids(self, model: str, mode: Mode, suites: Sequence[str]) -> list[Grid]:
        return [self.judged[model][suite, mode].agreement for suite in suites]

    def judging(self, model: str, mode: Mode, suites: Sequence[str]) -> Estimate:
        """Agreement with the verifier, the mean over suites; NaN without any."""
        return estimate(self.grids(model, mode, suites)) if suites else NOTHING

    def correlation(self, mode: Mode) -> Estimate:
        """Pearson's r of generation with judging over the models, both over the suites where judging is measurable."""
        able = self.able(mode)
        gen = [self.generation(m, able).value for m in self.models]
        return correlation(gen, [self.judging(m, mode, able).value for m in self.models]) if able else NOTHING

    def balanced_correlation(self, mode: Mode) -> Estimate:
        """The same with balanced accuracy, which does not rise with the share of right answers; NaN where a model's
        answers to a suite are all of one sort."""
        able = self.able(mode)
        gen = [self.generation(m, able).value for m in self.models]
        judging = [[self.judged[m][suite, mode].balanced_accuracy for suite in able] for m in self.models]
        return correlation(gen, [sum(each) / len(each) for each in judging]) if able else NOTHING

    def best(self, way: Way) -> str | None:
        """Of the models that combine domains this way, the one that generates best."""
        found = [m for m in self.models if self.arms.get(m) == way]
        return max(found, key=lambda m: self.generation(m, self.suites).value, default=None)

    def between_modes(self, suites: Sequence[str]) -> Gap:
        """Process minus outcome on the same answers, the mean over models and suites.

        All models answer the same prompts, which the interval therefore draws for all of them at once.
        """
        both = [s for s in suites if s in self.able("process") and s in self.able("outcome")]
        gaps = [_mean([self._process_minus_outcome(model, suite) for model in self.models]) for suite in both]
        return Gap(estimate(gaps) if both else NOTHING, both)

    def _process_minus_outcome(self, model: str, suite: str) -> Grid:
        process, outcome = (self.judged[model][suite, mode].agreement for mode in ("process", "outcome"))
        return pair(process, outcome)

    def between_models(self, left: str, right: str, mode: Mode) -> Gap:
        """``left − right`` over the prompts that both answered."""
        able = self.able(mode)
        gap = difference(self.grids(left, mode, able), self.grids(right, mode, able)) if able else NOTHING
        return Gap(gap, able)


def _mean(grids: Sequence[Grid]) -> Grid:
    """[1, prompts] The mean over models, prompt by prompt, of those that have an answer with a verdict to it."""
    points: dict[str, list[float]] = {}
    weights: dict[str, float] = {}
    for one in grids:
        for item, value, weight in zip(one.items, one.points[0], one.weights, strict=True):
            points.setdefault(item, []).append(value)
            weights[item] = weight
    means = np.array([[sum(each) / len(each) for each in points.values()]])
    return Grid((0,), tuple(points), means, np.array(list(weights.values()), np.float64))


def finite(value: float) -> float | None:
    """``None``, which a table shows as missing, for what is no number."""
    return value if math.isfinite(value) else None
