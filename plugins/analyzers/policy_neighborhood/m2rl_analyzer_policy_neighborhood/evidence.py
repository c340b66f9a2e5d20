"""All that is known of one model that combines domains: its grid, its neighbours, what it gained and lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2rl_analyzer_policy_neighborhood.measure import Cells
from m2rl_analyzer_policy_neighborhood.neighbors import Pair, pairs
from m2rl_core.statistics.correlation import correlation, crossed_correlation
from m2rl_core.statistics.scores import Estimate
from m2rl_core.types import Way

__all__ = ["Subject", "bounds", "finite", "mean", "measured", "pooled"]


@dataclass(frozen=True)
class Subject:
    """One model under analysis."""

    name: str
    way: Way | None
    cells: Cells
    changes: Mapping[tuple[str, str], Estimate]
    """(domain of the expert, domain of the data) → ΔPerf of the model against that expert on that domain, points."""

    @cached_property
    def pairs(self) -> list[Pair]:
        return pairs(self.cells)

    @property
    def title(self) -> str:
        """``multi (mix)``."""
        return f"{self.name} ({self.way})" if self.way else self.name

    @property
    def homes(self) -> list[str]:
        """Domains that have an expert."""
        return list(dict.fromkeys(home for home, _ in self.cells))

    @property
    def domains(self) -> list[str]:
        """Domains whose prompts were used."""
        return list(dict.fromkeys(domain for _, domain in self.cells))

    def rows(self, values: Mapping[tuple[str, str], Estimate]) -> dict[str, list[float | None]]:
        """Expert → value on every domain, as a heat map has it."""
        return {f"{home} expert": [finite(values[home, d].value) for d in self.domains] for home in self.homes}

    @cached_property
    def per_sequence(self) -> dict[tuple[str, str], Estimate]:
        return {at: cell.per_sequence("full") for at, cell in self.cells.items()}

    @cached_property
    def per_token(self) -> dict[tuple[str, str], Estimate]:
        return {at: cell.per_token("full") for at, cell in self.cells.items()}

    def correlation(self, kl: Mapping[tuple[str, str], Estimate]) -> Estimate:
        """Of KL with ΔPerf, over all cells."""
        return crossed_correlation(self._array(kl), self._array(self.changes))

    def own_correlation(self, kl: Mapping[tuple[str, str], Estimate]) -> Estimate:
        """The same over the experts on their own domains only."""
        x, y = self.own(kl), self.own(self.changes)
        known = np.isfinite(x) & np.isfinite(y)
        return correlation(x[known].tolist(), y[known].tolist())

    def own(self, values: Mapping[tuple[str, str], Estimate]) -> NDArray[np.float64]:
        """[domains] Every expert's value on its own domain."""
        return np.array([values[home, home].value for home in self.homes])

    def _array(self, values: Mapping[tuple[str, str], Estimate]) -> NDArray[np.float64]:
        return np.array([[values[home, domain].value for domain in self.domains] for home in self.homes])


def pooled(subjects: Sequence[Subject], unit: Literal["per_sequence", "per_token"]) -> Estimate:
    """The correlation of KL with ΔPerf over every model and every expert on its own domain."""
    x, y = (np.array([s.own(getattr(s, name)) for s in subjects]) for name in (unit, "changes"))
    return crossed_correlation(x, y)


def finite(value: float) -> float | None:
    """``None``, which a table shows as missing, for what is no number."""
    return value if math.isfinite(value) else None


def measured(found: Estimate) -> list[float | None]:
    """Value and interval as three cells."""
    return [finite(found.value), finite(found.low), finite(found.high)]


def bounds(found: Estimate) -> tuple[float, float] | None:
    """The interval of a claim, wide enough to hold its statistic: percentiles of a skewed statistic may not be."""
    if not (math.isfinite(found.low) and math.isfinite(found.value)):
        return None
    return min(found.low, found.value), max(found.high, found.value)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
