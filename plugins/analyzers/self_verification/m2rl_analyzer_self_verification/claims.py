"""What section 3.6 of the paper says of self-verification, tested on a study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from m2rl_analyzer_self_verification.evidence import Evidence
from m2rl_analyzer_self_verification.judging import MODES, Mode
from m2rl_core.statistics.scores import Estimate
from m2rl_core.types import Claim, ClaimVerdict, Expected, Way

__all__ = ["claims"]

SECTION = "3.6"
PAPER_GAPS: dict[Way, float] = {"merge": 24.2, "distil": 22.9}
"""Points of process judging above the mixed model, on average (Table 7)."""
PAPER = {"outcome": "The paper: r = 0.63, [−0.06, 0.91].", "process": "The paper: r = −0.53, [−0.88, 0.20]."}


def claims(evidence: Evidence, constraints: Sequence[str], interactive: str) -> Iterator[Claim]:
    """Two correlations (Fig. 6), two kinds of tasks (Fig. 7), the agent (finding 2), and the mixed model (Fig. 8)."""
    for mode in MODES:
        yield _correlation(evidence, mode)
    bound = [s for s in evidence.suites if evidence.domain(s) in constraints]
    free = [s for s in evidence.suites if s not in bound]
    yield _modes(evidence, free, "Where answers are derived, process verification beats outcome verification", 1)
    yield _modes(evidence, bound, "Where answers obey constraints, outcome verification beats process verification", -1)
    yield _interactive(evidence, interactive)
    yield from _mixed(evidence)


def _correlation(evidence: Evidence, mode: Mode) -> Claim:
    sign, word = (1, "with") if mode == "outcome" else (-1, "against")
    found = evidence.correlation(mode)
    statement = f"{mode.capitalize()} judging goes {word} generation: the correlation is {'+' if sign > 0 else '−'}"
    return _claim(statement, found, sign, f"{len(evidence.models)} models. {PAPER[mode]}")


def _modes(evidence: Evidence, suites: Sequence[str], statement: str, sign: int) -> Claim:
    gap = evidence.between_modes(suites)
    note = f"Points, process minus outcome, over {', '.join(gap.suites) or 'no suite'} and all models."
    return _claim(statement, gap.estimate, sign, note)


def _interactive(evidence: Evidence, domain: str) -> Claim:
    """Against the best of the other experts."""
    statement = f"The expert of '{domain}' is the best process judge among the experts"
    mine = evidence.experts.get(domain)
    others = [m for d, m in evidence.experts.items() if d != domain and m in evidence.judged]
    able = evidence.able("process")
    if mine is None or mine not in evidence.judged or not others or not able:
        return Claim(statement, SECTION, None, None, "not measurable")
    rival = max(others, key=lambda m: evidence.judging(m, "process", able).value)
    gap = evidence.between_models(mine, rival, "process")
    return _claim(statement, gap.estimate, 1, f"Points above {rival}, the best of the others. The paper: 7.9.")


def _mixed(evidence: Evidence) -> Iterator[Claim]:
    """The best mixed model against the best merged and the best distilled one."""
    for way, paper in PAPER_GAPS.items():
        mixed, other = evidence.best("mix"), evidence.best(way)
        if mixed is not None and other is not None:
            gap = evidence.between_models(other, mixed, "process").estimate
            statement = f"Process verification collapses in {mixed} (mix), not in {other} ({way})"
            yield _claim(statement, gap, 1, f"Points of {other} above {mixed}. The paper: {paper}.")


def _claim(statement: str, found: Estimate, sign: int, note: str) -> Claim:
    """``sign``: that which the paper says the statistic has."""
    if not (math.isfinite(found.value) and math.isfinite(found.low)):
        return Claim(statement, SECTION, None, None, "not measurable", note)
    interval = min(found.low, found.value), max(found.high, found.value)
    verdict: ClaimVerdict = "undecided"
    if found.decided:
        verdict = "holds" if found.value * sign > 0 else "fails"
    expected: Expected = ("above" if sign > 0 else "below", 0.0)
    return Claim(statement, SECTION, found.value, interval, verdict, note, expected)
