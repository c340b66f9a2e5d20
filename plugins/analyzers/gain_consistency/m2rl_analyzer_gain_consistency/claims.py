"""What the paper's section 3.5 says of gain consistency, tested on this study.

All but the first use the corrected cosine: raw ones differ between suites by the number of samples alone. Means over
suites; intervals are 95% bootstrap intervals over prompts, and say nothing of another training run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from m2rl_analyzer_gain_consistency.answers import FEWEST, Floats
from m2rl_analyzer_gain_consistency.consistency import Consistency
from m2rl_analyzer_gain_consistency.tables import Results
from m2rl_core.statistics.scores import Estimate, summarise
from m2rl_core.types import Claim, ClaimVerdict

SECTION = "3.5"
MATH = "math"

OVERLAP = "Combined models gain on the prompts on which the experts gain, more than by chance."
MATH_FIRST = "Gains are most consistent in math."
EMERGENT = "Outside math, combined models also gain where no expert does."
MERGING = "Merged models' gains are more consistent with the experts' than those of mixed and distilled models."


def claims(results: Results) -> list[Claim]:
    """All of them."""
    if results.found and not any(each.corrected_prompts for each in results.found.values()):
        why = f"noise cannot be told from gains: no prompt has {FEWEST} samples of every model"
        return [_unmeasured(statement, why) for statement in (OVERLAP, MATH_FIRST, EMERGENT, MERGING)]
    return [_overlap(results), _math(results), _emergent(results), _merging(results)]


def _overlap(results: Results) -> Claim:
    found = {arm: _excess([results.found[s, arm] for s in results.suites if (s, arm) in results.found])
             for arm in results.arms}  # fmt: skip
    known = {arm: each for arm, each in found.items() if np.isfinite(each.value)}
    if not known:
        return _unmeasured(OVERLAP, "no arm and the union both gain on a suite")
    lowest = min(known, key=lambda arm: known[arm].value)
    note = f"cosine of halves minus that of equally hard prompts in random order, mean over suites; {lowest} is lowest"
    return _claim(OVERLAP, known[lowest], _all_above(known.values(), 0.0), note)


def _excess(found: Sequence[Consistency]) -> Estimate:
    """How far the cosine of halves exceeds chance, mean over suites; the interval is that of chance."""
    known = [each for each in found if np.isfinite(each.halves)]
    if not known:
        return summarise(float("nan"), np.empty(0))
    value = float(np.mean([each.halves - each.level_null.mean for each in known]))
    noise = np.mean([each.level_null.values - each.level_null.mean for each in known], axis=0)
    return summarise(value, np.asarray(value - noise))


def _math(results: Results) -> Claim:
    domains = dict.fromkeys(results.suites.values())
    means = {domain: _over(results, [s for s, d in results.suites.items() if d == domain]) for domain in domains}
    known = {domain: each for domain, each in means.items() if np.isfinite(each[0])}
    if MATH not in known or len(known) < 2:
        return _unmeasured(MATH_FIRST, f"needs measurable gains in domain '{MATH}' and in another")
    gaps = {domain: _difference(known[MATH], each) for domain, each in known.items() if domain != MATH}
    closest = min(gaps, key=lambda domain: gaps[domain].value)
    note = f"corrected cosine, math minus {closest}, mean over arms"
    return _claim(MATH_FIRST, gaps[closest], _all_above(gaps.values(), 0.0), note)


def _emergent(results: Results) -> Claim:
    value, draws = _over(results, [suite for suite, domain in results.suites.items() if domain != MATH])
    if not np.isfinite(value):
        return _unmeasured(EMERGENT, "no measurable gains outside math")
    gap = summarise(1 - value, 1 - draws)
    return _claim(EMERGENT, gap, _all_above([gap], 0.0), "1 minus the corrected cosine, mean over arms and suites")


def _merging(results: Results) -> Claim:
    ways = dict.fromkeys(results.arms.values())
    by_way = {way: _over(results, results.suites, [a for a, w in results.arms.items() if w == way]) for way in ways}
    known = {way: each for way, each in by_way.items() if np.isfinite(each[0])}
    if "merge" not in known or len(known) < 2:
        return _unmeasured(MERGING, "needs measurable gains of a merged model and of a mixed or distilled one")
    gaps = {way: _difference(known["merge"], each) for way, each in known.items() if way != "merge"}
    closest = min(gaps, key=lambda way: gaps[way].value)
    note = f"corrected cosine, merge minus {closest}, mean over suites and models"
    return _claim(MERGING, gaps[closest], _all_above(gaps.values(), 0.0), note)


def _over(results: Results, suites: Iterable[str], arms: Iterable[str] | None = None) -> tuple[float, Floats]:
    """The corrected cosine and its draws, mean over what is measurable; NaN where nothing is.

    Arms answer the same prompts, but are resampled apart: their differences' intervals are wide rather than narrow.
    """
    pairs = [(s, a) for s in suites for a in (results.arms if arms is None else arms)]
    known = [results.found[p] for p in pairs if p in results.found and np.isfinite(results.found[p].corrected)]
    if not known:
        return float("nan"), np.empty(0)
    return float(np.mean([each.corrected for each in known])), np.asarray(np.mean([e.draws for e in known], axis=0))


def _difference(left: tuple[float, Floats], right: tuple[float, Floats]) -> Estimate:
    return summarise(left[0] - right[0], left[1] - right[1])


def _all_above(found: Iterable[Estimate], limit: float) -> ClaimVerdict:
    """Whether all are known to exceed the limit; it fails where one is known not to."""
    estimates = list(found)
    if all(each.low > limit for each in estimates):
        return "holds"
    return "fails" if any(each.high < limit for each in estimates) else "undecided"


def _claim(statement: str, found: Estimate, verdict: ClaimVerdict, note: str) -> Claim:
    interval = None
    if np.isfinite(found.low):
        interval = min(found.low, found.value), max(found.high, found.value)
    return Claim(statement, SECTION, found.value, interval, verdict, note, expected=("above", 0.0))


def _unmeasured(statement: str, why: str) -> Claim:
    return Claim(statement, SECTION, None, None, "not measurable", why)
