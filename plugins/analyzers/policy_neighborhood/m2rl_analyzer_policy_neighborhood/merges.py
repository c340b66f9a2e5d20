"""Table 6 of the paper: does a merge of two experts gain where the second one is a neighbour of the first?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m2rl_analyzer_policy_neighborhood.evidence import Subject, bounds, mean, measured
from m2rl_analyzer_policy_neighborhood.scores import Scores
from m2rl_core.statistics.scores import Estimate, Grid, draws, estimate, summarise
from m2rl_core.types import Claim, ClaimVerdict, Table

__all__ = ["claim", "outcomes", "table"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A merge of two experts, seen from one of their domains."""

    merge: str
    domain: str
    partner: str
    gaps: list[Grid]
    """The merge minus the domain's expert, on the domain's suites."""
    neighbor: str
    """Whether the partner is a neighbour of the domain; empty where it was not measured."""


def outcomes(
    merges: Mapping[str, tuple[str, str]], experts: Mapping[str, str], subject: Subject, tau: float, scores: Scores
) -> list[Outcome]:
    """Every merge from both of its domains, as far as it was evaluated there."""
    says = {(pair.domain, pair.other): pair.says(tau) for pair in subject.pairs}
    found = []
    for merge, (one, other) in merges.items():
        for domain, partner in ((one, other), (other, one)):
            if gaps := scores.gaps(merge, experts[domain], domain):
                found.append(Outcome(merge, domain, partner, gaps, says.get((domain, partner), "")))
    return found


def table(found: Sequence[Outcome], subject: Subject, tau: float) -> Table:
    rows = [[o.merge, o.domain, o.partner, *measured(estimate(o.gaps)), o.neighbor] for o in found]
    note = f"Change: points above the domain's own expert, the mean over its suites. Neighbours by {subject.title}."
    columns = ["merge", "domain", "partner", "change", "low", "high", f"neighbour at τ = {tau:g}"]
    return Table("Merges of two experts", columns, rows, note)


def claim(found: Sequence[Outcome]) -> Claim:
    """The mean change with a neighbour minus that with another partner, whether or not a neighbour is certain."""
    near = [o.gaps for o in found if o.neighbor.startswith("yes")]
    far = [o.gaps for o in found if o.neighbor.startswith("no")]
    statement = "Merging an expert with a policy neighbour gains more in its domain than with another expert"
    if not near or not far:
        return Claim(statement, "3.4", None, None, "not measurable", "It takes merges of both sorts.")
    gap = _gap(near, far)
    verdict: ClaimVerdict = "undecided"
    if gap.decided:
        verdict = "holds" if gap.value > 0 else "fails"
    note = f"Points; {len(near)} merges with a neighbour, {len(far)} without. Table 6 of the paper: +2.5 and −2.5."
    return Claim(statement, "3.4", gap.value, bounds(gap), verdict, note, expected=("above", 0.0))


def _gap(near: Sequence[list[Grid]], far: Sequence[list[Grid]]) -> Estimate:
    value = mean([estimate(gaps).value for gaps in near]) - mean([estimate(gaps).value for gaps in far])
    return summarise(value, np.mean([draws(g) for g in near], axis=0) - np.mean([draws(g) for g in far], axis=0))
