"""What the paper's section 3.2 says of scores and of cost, tested on this study by the report itself.

"Comparable", "no interference" and "no effect" are claims of equality, which a wide interval does not show: they hold
where a difference of :data:`COMPARABLE` points is excluded, and fail where at least as much is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from m2rl_core.report.arms import Contender, complete, contenders, effort, expert_of, references, start_of, way_of
from m2rl_core.report.evidence import Cost, Evidence
from m2rl_core.report.tables import number
from m2rl_core.statistics.scores import Estimate, Grid, difference, estimate, pair
from m2rl_core.types import Claim, ClaimVerdict, Way

__all__ = ["COMPARABLE", "core_claims", "cost_claim", "equal", "not_below"]

SECTION = "3.2"
COMPARABLE = 2.0
"""Points of difference that count as none. The paper names no threshold; its own arms differ by up to 0.5."""
REASONING = ("math", "coding", "science")
OBEYING, ACTING = "if", "agent"


def core_claims(evidence: Evidence) -> Iterator[Claim]:
    """Those for which the study has what it takes."""
    rivals = {rival.way: rival for rival in contenders(evidence)}
    yield from _between_ways(rivals)
    yield from _costs(evidence, rivals)
    yield from _against_experts(evidence, rivals)
    experts = _experts(evidence)
    yield from _own_domain(evidence, experts)
    yield from _across(evidence, experts)
    yield from _beside_imported(evidence, rivals)


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def equal(found: Estimate) -> ClaimVerdict:
    """Whether a difference is none worth the name."""
    if found.low > -COMPARABLE and found.high < COMPARABLE:
        return "holds"
    return "fails" if found.low >= COMPARABLE or found.high <= -COMPARABLE else "undecided"


def not_below(found: Estimate) -> ClaimVerdict:
    """Whether a difference is no loss worth the name."""
    if found.low > -COMPARABLE:
        return "holds"
    return "fails" if found.high <= -COMPARABLE else "undecided"


def _all_above(found: Iterable[Estimate]) -> ClaimVerdict:
    """Whether all are known to be positive; it fails where one is known not to be."""
    known = list(found)
    if all(each.low > 0 for each in known):
        return "holds"
    return "fails" if any(each.high < 0 for each in known) else "undecided"


def _claim(statement: str, found: Estimate, verdict: ClaimVerdict, note: str) -> Claim:
    """Without spread there is nothing to tell: both models then give the same answers, all of them wrong perhaps."""
    if not found.error > 0:
        why = f"{note} No answer tells the two apart."
        return Claim(statement, SECTION, found.value, None, "not measurable", why)
    return Claim(statement, SECTION, found.value, (found.low, found.high), verdict, note)


# ── mixing, merging and distilling ───────────────────────────────────────────────────────────────────────────────────

COMPARED: tuple[tuple[str, Way, Way, str], ...] = (
    ("Mixing does as well as experts that are merged", "mix", "merge", "The paper: 61.2 and 61.0 points."),
    ("Distilling experts does as well as merging them", "distil", "merge", "The paper: 60.5 and 61.0 points."),
)


def _between_ways(rivals: dict[Way, Contender]) -> Iterator[Claim]:
    for statement, left, right, paper in COMPARED:
        if left in rivals and right in rivals:
            gap = difference(rivals[left].grids, rivals[right].grids)
            note = f"Points of {left} − {right}; within {COMPARABLE:g} either way counts as equal. {paper}"
            yield _claim(statement, gap, equal(gap), note)


KEPT: dict[Way, str] = {
    "mix": "Mixing costs no domain its expert's performance: there is little interference",
    "merge": "Merging weights keeps the experts' performance in their own domains",
}


def _against_experts(evidence: Evidence, rivals: dict[Way, Contender]) -> Iterator[Claim]:
    """In the experts' own domains, the mean over domains."""
    experts, suites = _experts(evidence), evidence.planned[1]
    for way, statement in KEPT.items():
        if way not in rivals or not experts:
            continue
        arm = dict(zip(suites, rivals[way].grids, strict=True))
        gaps = {d: [pair(arm[s], evidence.grids[m][s]) for s in _home(evidence, d)] for d, m in experts.items()}
        gap = estimate([grid for grids in gaps.values() for grid in grids])
        each = ", ".join(f"{domain} {number(estimate(grids).value, signed=True)}" for domain, grids in gaps.items())
        note = f"Points above the experts, mean over suites; holds where a loss of {COMPARABLE:g} is excluded. {each}."
        yield _claim(statement, gap, not_below(gap), note)


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _costs(evidence: Evidence, rivals: dict[Way, Contender]) -> Iterator[Claim]:
    """The mixed run against one expert for each of its domains; start and merging left out, as in the paper."""
    stages = evidence.rl_stages()
    mixed = rivals["mix"].model if "mix" in rivals else next((n for n in stages if way_of(evidence, n) == "mix"), None)
    if mixed is None:
        return
    experts = {domain: name for name in reversed(stages) if (domain := expert_of(evidence, name))}
    needed = [experts[domain] for domain in stages[mixed].domains if domain in experts]
    mix, apart = effort(evidence, mixed), [effort(evidence, name) for name in needed]
    costs = [one.cost for one in apart if one.cost is not None]
    if mix.cost is not None and len(costs) == len(stages[mixed].domains):
        yield cost_claim(mix.cost.device, mix.steps, sum(costs, Cost()).device, sum(one.steps for one in apart))


def cost_claim(mixed: float, mixed_steps: int, experts: float, expert_steps: int) -> Claim:
    """Device time of the mixed run over that of all experts, whatever its unit; the paper's 63.7% is such a ratio.

    It hangs on how long each was trained, so that the note says what a step cost.
    """
    ratio = mixed / experts
    per_step = (mixed / mixed_steps) / (experts / expert_steps)
    note = (
        f"Ratio of totals, of {mixed_steps} steps and of {expert_steps}; a step of the mixed run costs {per_step:.2f} "
        "times one of an expert. The paper: 0.637 of 1000 and 2000 steps, a step 1.27 times."
    )
    statement = "The mixed run takes less device time than the experts together"
    return Claim(statement, SECTION, ratio, None, "holds" if ratio < 1 else "fails", note)


# ── experts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _experts(evidence: Evidence) -> dict[str, str]:
    """Domain → its expert, evaluated on everything."""
    models, suites = evidence.planned
    found = {d: m for m in models if "@" not in m and (d := expert_of(evidence, m)) and complete(evidence, m, suites)}
    return {domain: found[domain] for domain in evidence.study.domains if domain in found and _home(evidence, domain)}


def _home(evidence: Evidence, domain: str) -> list[str]:
    return [suite for suite in evidence.planned[1] if evidence.domain_of.get(suite) == domain]


def _gap(evidence: Evidence, left: str, right: str, domain: str) -> Estimate:
    """Points of ``left − right`` on a domain's suites."""
    suites = _home(evidence, domain)
    return difference(_grids(evidence, left, suites), _grids(evidence, right, suites))


def _grids(evidence: Evidence, model: str, suites: Sequence[str]) -> list[Grid]:
    return [evidence.grids[model][suite] for suite in suites]


def _own_domain(evidence: Evidence, experts: dict[str, str]) -> Iterator[Claim]:
    if len(experts) < 2:
        return
    gaps = {
        (domain, other): _gap(evidence, experts[domain], experts[other], domain)
        for domain in experts
        for other in experts
        if other != domain
    }
    domain, other = min(gaps, key=lambda pair: gaps[pair].value)
    note = f"Points, {domain} above {other} on {domain}, the lowest. The paper: all but science, where math is ahead."
    statement = "Each expert is the best of the experts in its own domain"
    yield _claim(statement, gaps[domain, other], _all_above(gaps.values()), note)


def _across(evidence: Evidence, experts: dict[str, str]) -> Iterator[Claim]:
    """What training in one domain does to another, in points above the start."""
    start = start_of(evidence)
    if start is None or not complete(evidence, start, evidence.planned[1]):
        return

    def gains(sources: Iterable[str], targets: Iterable[str]) -> dict[str, Estimate]:
        wanted, aims = [d for d in sources if d in experts], [d for d in targets if d in experts]
        return {f"{a} on {b}": _gap(evidence, experts[a], start, b) for a in wanted for b in aims if a != b}

    helped = {
        "The reasoning domains improve each other": gains(REASONING, REASONING),
        "Instruction following improves the reasoning domains": gains([OBEYING], REASONING),
    }
    for statement, found in helped.items():
        if found:
            yield _claim(statement, *_lowest(found, start))
    untouched = gains((*REASONING, OBEYING), [ACTING])
    if untouched:
        name = max(untouched, key=lambda key: abs(untouched[key].value))
        verdicts = {equal(each) for each in untouched.values()}
        verdict: ClaimVerdict = "holds" if verdicts == {"holds"} else "fails" if "fails" in verdicts else "undecided"
        note = f"Points above {start}, {name}, the farthest from zero; within {COMPARABLE:g} counts as no effect."
        yield _claim("The other domains neither help nor harm the agent's tasks", untouched[name], verdict, note)


def _lowest(found: dict[str, Estimate], start: str) -> tuple[Estimate, ClaimVerdict, str]:
    name = min(found, key=lambda key: found[key].value)
    return found[name], _all_above(found.values()), f"Points above {start}, {name}, the lowest of {len(found)}."


def _beside_imported(evidence: Evidence, rivals: dict[Way, Contender]) -> Iterator[Claim]:
    suites = evidence.planned[1]
    for name in references(evidence):
        if "merge" in rivals and complete(evidence, name, suites):
            gap = difference(rivals["merge"].grids, _grids(evidence, name, suites))
            note = f"Points of {rivals['merge'].model} − {name}; holds where a loss of {COMPARABLE:g} is excluded."
            yield _claim(f"Merged experts do as well as {name}", gap, not_below(gap), f"{note} The paper: +8.1.")
