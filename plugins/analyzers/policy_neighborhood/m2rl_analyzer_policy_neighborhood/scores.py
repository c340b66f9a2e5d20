"""Points that a model gains or loses against an expert, from the study's evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.interfaces import Lab
from m2rl_core.statistics.scores import Estimate, Grid, estimate, grid, pair

__all__ = ["Scores"]

UNKNOWN = Estimate(math.nan, math.nan, math.nan, math.nan)


class Scores:
    """All evaluations of the models asked about, each read once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._known: dict[str, Mapping[str, tuple[str, Grid]]] = {}

    def of(self, model: str) -> Mapping[str, tuple[str, Grid]]:
        """Suite → (its domain, rewards); nothing for a model that was not evaluated."""
        if model not in self._known:
            self._known[model] = {
                suite: (records[0]["domain"], grid({0: ((r["prompt"], r["weight"], r["reward"]) for r in records)}))
                for suite, records in self._records(model).items()
                if records
            }
        return self._known[model]

    def _records(self, model: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        try:
            return self._lab.scores(model)
        except DataError:  # it was not evaluated, so that its changes are missing
            return {}

    def gaps(self, model: str, other: str, domain: str) -> list[Grid]:
        """``model − other`` on every suite of the domain that both were evaluated on."""
        mine, theirs = self.of(model), self.of(other)
        return [pair(g, theirs[suite][1]) for suite, (of, g) in mine.items() if of == domain and suite in theirs]

    def change(self, model: str, other: str, domain: str) -> Estimate:
        """ΔPerf: points that ``model`` is above ``other``, the mean over the domain's suites; NaN without any."""
        gaps = self.gaps(model, other, domain)
        return estimate(gaps) if gaps else UNKNOWN

    def best(self, models: Sequence[str]) -> str:
        """The model with the highest mean over the suites that all evaluated ones share; the first of equals."""
        known = [model for model in models if self.of(model)]
        shared = [suite for suite in self.of(known[0]) if all(suite in self.of(m) for m in known)] if known else []

        def mean(model: str) -> float:
            return sum(self.of(model)[suite][1].score for suite in shared) / max(1, len(shared))

        return max(known or models, key=mean)
