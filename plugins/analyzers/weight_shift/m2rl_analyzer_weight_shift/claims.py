"""What the paper's section 3.3 says of weight shifts, tested on these models.

Intervals are bootstrap intervals over tensors (one weight type of one layer each): they say how far the result depends
on which tensors are looked at, not what another training run would give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import NormalDist

import numpy as np

from m2rl_analyzer_weight_shift import measures
from m2rl_analyzer_weight_shift.measures import Shifts
from m2rl_analyzer_weight_shift.tables import UNINFORMATIVE, number
from m2rl_analyzer_weight_shift.tally import RULES, Floats
from m2rl_core.statistics.scores import Estimate, Grid, estimate
from m2rl_core.types import Claim, ClaimVerdict

SECTION = "3.3"
UNCHANGED = "no weight has changed"


def claims(shifts: Shifts, domains: Mapping[str, str], reasoning: Sequence[str]) -> list[Claim]:
    """All of them.

    Args:
        domains: model → its domain.
        reasoning: domains that the paper calls reasoning domains.
    """
    return [_sparse(shifts), _overlap(shifts), _aligned(shifts), _reasoning(shifts, domains, reasoning)]


def _sparse(shifts: Shifts) -> Claim:
    statement = "A minority of the weights changes: about 30% on average."
    found = _over_places(shifts, [float(np.mean(measures.shares([t]))) for t in shifts.places.values()])
    if found.value == 0:
        return _unmeasured(statement, UNCHANGED)
    verdict, note = _above(0.5, found, flip=True), "share of changed weights, mean over models"
    return replace(_claim(statement, found, verdict, note), expected=("below", 0.5))


def _overlap(shifts: Shifts) -> Claim:
    statement = "The weights that different domains change overlap more than random masks do."
    if not shifts.pairs:
        return _unmeasured(statement, "there is one model only")
    share = float(measures.shares(shifts.of()).max())
    if share > UNINFORMATIVE:
        return _unmeasured(statement, f"uninformative: a model has changed {share:.0%} of its weights")
    found = {rule: _over_places(shifts, _excess(shifts, rule)) for rule in RULES}
    if not np.isfinite(found["eta"].value):
        return _unmeasured(statement, UNCHANGED)
    others = "; ".join(f"{rule} {found[rule].value:+.3f}" for rule in RULES[1:])
    note = f"Jaccard overlap minus that of random masks, mean over pairs; by other rules: {others}"
    return replace(_claim(statement, found["eta"], _above(0.0, found["eta"]), note), expected=("above", 0.0))


def _excess(shifts: Shifts, rule: str) -> list[float]:
    """Of every tensor: the overlap beyond chance, mean over pairs."""
    beyond = [measures.jaccard([t], rule) - measures.random_jaccard([t], rule) for t in shifts.places.values()]
    return [_mean(each[pair] for pair in shifts.pairs) for each in beyond]


def _aligned(shifts: Shifts) -> Claim:
    statement = "Shifts of different domains point the same way where they overlap: every pair's cosine is positive."
    if not shifts.pairs:
        return _unmeasured(statement, "there is one model only")
    found = {pair: _over_places(shifts, _angles(shifts, [pair])) for pair in shifts.pairs}
    known = {pair: each for pair, each in found.items() if np.isfinite(each.value)}
    if not known:
        return _unmeasured(statement, "no two models have changed the same weight")
    lowest = min(known, key=lambda pair: known[pair].value)
    note = f"exact cosine of the lowest pair, {shifts.label(lowest)}; mean over tensors"
    return _claim(statement, known[lowest], _all_positive(list(known.values()), len(shifts.places)), note)


def _all_positive(found: Sequence[Estimate], tensors: int) -> ClaimVerdict:
    """The lowest of several estimates is low by chance alone, so that a negative one must stand out among them all."""
    if all(each.low > 0 for each in found):
        return "holds"
    normal = NormalDist().inv_cdf(1 - 0.025 / len(found))
    strict = normal + (normal**3 + normal) / (4 * max(1, tensors - 1))  # Student's, where few tensors tell the error
    return "fails" if any(each.value + strict * each.error < 0 for each in found) else "undecided"


def _reasoning(shifts: Shifts, domains: Mapping[str, str], reasoning: Sequence[str]) -> Claim:
    statement = "Reasoning domains' shifts are more alike to each other than to those of the other domains."
    inside = {i for i, model in enumerate(shifts.models) if domains.get(model) in reasoning}
    within = list(combinations(sorted(inside), 2))
    across = [pair for pair in shifts.pairs if len(inside & {*pair}) == 1]
    if not within or not across:
        return _unmeasured(statement, f"needs two domains of {', '.join(reasoning)} and one other")
    ours, theirs = _angles(shifts, within), _angles(shifts, across)
    found = _over_places(shifts, [a - b for a, b in zip(ours, theirs, strict=True)])
    if not np.isfinite(found.value):
        return _unmeasured(statement, "too few models have changed the same weights")
    note = "difference of mean exact cosines; mean over tensors"
    return replace(_claim(statement, found, _above(0.0, found), note), expected=("above", 0.0))


def _angles(shifts: Shifts, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Of every tensor: the exact cosine, mean over some pairs."""
    found = [measures.cosines(tally) for tally in shifts.places.values()]
    return [_mean(each[pair] for pair in pairs) for each in found]


def _over_places(shifts: Shifts, values: Sequence[float]) -> Estimate:
    """The mean over tensors with its interval."""
    items = tuple(f"{place.layer} {place.kind}" for place in shifts.places)
    points: Floats = np.array([values])
    return estimate([Grid((0,), items, points, np.ones(len(items)))])


def _above(limit: float, found: Estimate, *, flip: bool = False) -> ClaimVerdict:
    """Whether a number is known to lie above a limit (below, if flipped)."""
    if found.low > limit:
        return "fails" if flip else "holds"
    if found.high < limit:
        return "holds" if flip else "fails"
    return "undecided"


def _claim(statement: str, found: Estimate, verdict: ClaimVerdict, note: str) -> Claim:
    low, high = number(min(found.low, found.value)), number(max(found.high, found.value))
    interval = None if low is None or high is None else (low, high)
    return Claim(statement, SECTION, number(found.value), interval, verdict, note)


def _unmeasured(statement: str, why: str) -> Claim:
    return Claim(statement, SECTION, None, None, "not measurable", why)


def _mean(values: Iterable[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")
