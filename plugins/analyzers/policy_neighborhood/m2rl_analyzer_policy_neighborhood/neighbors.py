"""Eq. 1 of the paper: whose experts are neighbours of whom, and from which threshold on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from m2rl_analyzer_policy_neighborhood.measure import Cells, ratio
from m2rl_core.statistics.scores import Estimate

__all__ = ["Pair", "asymmetric", "counts", "neighbors", "pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Whether domain ``other`` is a policy neighbour of ``domain``, by the expert of ``other`` on ``domain``'s prompts.

    It is one where KL(E_other ‖ π) < (1 + τ) · KL(E_domain ‖ π), both on ``domain``: where ``ratio`` < 1 + τ.
    """

    domain: str
    other: str
    ratio: Estimate
    """KL(E_other ‖ π) / KL(E_domain ‖ π) on the same prompts; NaN where the own expert's KL is zero."""

    @property
    def least_tau(self) -> float:
        """A neighbour at every τ above this; below 0 it is closer than the own expert."""
        return self.ratio.value - 1

    def near(self, tau: float) -> bool:
        """Eq. 1; never where the own expert's KL is zero, since nothing is less than that."""
        return self.ratio.value < 1 + tau

    def certain(self, tau: float) -> bool:
        """True where the ratio's interval lies on one side of the threshold."""
        return self.ratio.high < 1 + tau or self.ratio.low > 1 + tau

    def says(self, tau: float) -> Literal["yes", "no", "yes, uncertain", "no, uncertain", "undefined"]:
        if math.isnan(self.ratio.value):
            return "undefined"
        if self.near(tau):
            return "yes" if self.certain(tau) else "yes, uncertain"
        return "no" if self.certain(tau) else "no, uncertain"


def pairs(cells: Cells) -> list[Pair]:
    """All ordered pairs of domains whose experts were measured, by trajectory (Eq. 1) over the whole vocabulary."""
    homes = list(dict.fromkeys(home for home, _ in cells))
    return [
        Pair(domain, other, ratio(cells[other, domain].full, cells[domain, domain].full))
        for domain, other in permutations(homes, 2)
        if (domain, domain) in cells and (other, domain) in cells
    ]


def neighbors(found: Sequence[Pair], domain: str, tau: float) -> list[str]:
    """The neighbour set of a domain, the closest first."""
    near = [pair for pair in found if pair.domain == domain and pair.near(tau)]
    return [pair.other for pair in sorted(near, key=lambda pair: pair.ratio.value)]


def counts(found: Sequence[Pair], taus: Sequence[float]) -> list[float]:
    """Neighbours in all, at every τ."""
    return [float(sum(pair.near(tau) for pair in found)) for tau in taus]


def asymmetric(found: Sequence[Pair], tau: float) -> Iterator[tuple[Pair, Pair]]:
    """(a neighbour, the same two domains the other way round, where it is none)."""
    by_names = {(pair.domain, pair.other): pair for pair in found}
    for pair in found:
        back = by_names.get((pair.other, pair.domain))
        if pair.near(tau) and back is not None and not math.isnan(back.ratio.value) and not back.near(tau):
            yield pair, back
