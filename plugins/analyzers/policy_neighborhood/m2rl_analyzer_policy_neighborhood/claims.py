"""What section 3.4 of the paper says of policy neighbourhoods, tested on a study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from m2rl_analyzer_policy_neighborhood.evidence import Subject, bounds, pooled
from m2rl_analyzer_policy_neighborhood.neighbors import Pair, asymmetric
from m2rl_core.types import Claim, ClaimVerdict

__all__ = ["claims"]

SECTION = "3.4"
STRONG = 0.5
"""|r| that must be excluded before "no correlation" holds: a wide interval that holds zero shows nothing."""


def claims(subjects: Sequence[Subject], tau: float) -> Iterator[Claim]:
    """Three for each model, and one for all of them."""
    for subject in subjects:
        yield _own_is_closest(subject)
        yield _neighbors(subject, tau)
        yield _asymmetry(subject, tau)
    yield _no_correlation(subjects)


def _own_is_closest(subject: Subject) -> Claim:
    """Certain where every other expert's ratio is above 1, or one is below."""
    known = _known(subject)
    closest = [d for d in subject.homes if all(p.ratio.value > 1 for p in known if p.domain == d)]
    if not known:
        verdict: ClaimVerdict = "not measurable"
    elif all(p.ratio.low > 1 for p in known):
        verdict = "holds"
    else:
        verdict = "fails" if any(p.ratio.high < 1 for p in known) else "undecided"
    note = f"Share of {len(subject.homes)} domains: {', '.join(closest) or 'none'}. The paper shows it for mathematics."
    share = len(closest) / len(subject.homes) if known else None
    statement = f"On every domain's prompts the domain's own expert is the closest to {subject.title}"
    return Claim(statement, SECTION, share, None, verdict, note)


def _neighbors(subject: Subject, tau: float) -> Claim:
    known = _known(subject)
    near = [pair for pair in known if pair.near(tau)]
    if not known:
        verdict: ClaimVerdict = "not measurable"
    elif any(pair.certain(tau) for pair in near):
        verdict = "holds"
    else:
        verdict = "undecided" if near or not all(pair.certain(tau) for pair in known) else "fails"
    listed = ", ".join(f"{p.other} of {p.domain}" for p in near) or "none"
    note = f"Pairs at τ = {tau:g}, of {len(known)}: {listed}. The paper: coding of math, agent of coding."
    statement = f"Experts of other domains are neighbours by {subject.title}"
    return Claim(statement, SECTION, float(len(near)) if known else None, None, verdict, note)


def _asymmetry(subject: Subject, tau: float) -> Claim:
    known = _known(subject)
    found = list(asymmetric(subject.pairs, tau))
    if not known:
        verdict: ClaimVerdict = "not measurable"
    elif any(one.certain(tau) and back.certain(tau) for one, back in found):
        verdict = "holds"
    else:
        verdict = "undecided" if found or not all(pair.certain(tau) for pair in known) else "fails"
    listed = ", ".join(f"{one.other} of {one.domain}" for one, _ in found) or "none"
    note = f"Neighbours one way only, at τ = {tau:g}: {listed}. The paper: coding of math."
    statement = f"Being a policy neighbour by {subject.title} is asymmetric"
    return Claim(statement, SECTION, float(len(found)) if known else None, None, verdict, note)


def _no_correlation(subjects: Sequence[Subject]) -> Claim:
    """Stricter than the paper's "no significant correlation", which too little data would do for."""
    r = pooled(subjects, "per_token")
    interval = bounds(r)
    statement = "KL from a domain's expert does not correlate with the change of performance in that domain"
    if interval is None:
        return Claim(statement, SECTION, None, None, "not measurable", "It takes three models and three domains.")
    verdict: ClaimVerdict = "fails" if r.decided else "undecided"
    if -STRONG < interval[0] <= 0 <= interval[1] < STRONG:
        verdict = "holds"
    models = ", ".join(subject.name for subject in subjects)
    note = f"Pearson's r over the experts on their own domains and {models}. Holds where |r| of {STRONG} is excluded."
    return Claim(statement, SECTION, r.value, interval, verdict, note)


def _known(subject: Subject) -> list[Pair]:
    return [pair for pair in subject.pairs if not math.isnan(pair.ratio.value)]
