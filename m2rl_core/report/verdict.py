"""The question of the study, answered: mix, merge or distil?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m2rl_core.report.arms import (
    WAYS,
    Contender,
    Effort,
    Margin,
    along,
    contenders,
    effort,
    margins,
    mean_score,
    start_of,
    way_of,
)
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Measured, interval, number
from m2rl_core.statistics import Estimate, difference
from m2rl_core.types import Table, Way


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first screen."""

    answer: str
    """E.g. ``Merge.``, ``Mix or distil.`` or ``Undecided.``"""
    reasons: list[str]
    margins: list[Margin]
    section: Section
    """The same in numbers."""


def verdict(evidence: Evidence) -> Verdict:
    """Compare the best arm of each way, over all suites."""
    rivals = contenders(evidence)
    pairs = margins(rivals)
    reasons = [_reason(evidence, pair) for pair in pairs]
    reasons += _absences(evidence, rivals)
    tables = {"arms": arms_table(evidence, rivals)}
    if pairs:
        tables |= {"margins": margins_table(evidence, pairs), "equal": equal_table(evidence, rivals)}
    return Verdict(answer(rivals, pairs), reasons, pairs, Section("arms", "The arms", _reading(evidence), tables))


def answer(rivals: Sequence[Contender], pairs: Sequence[Margin]) -> str:
    """The ways that no other way is better than."""
    if len(rivals) < 2:
        return "Not answered."
    beaten = {pair.right.way for pair in pairs if pair.gap.decided}
    left = [rival.way for rival in rivals if rival.way not in beaten]
    return "Undecided." if len(left) == len(rivals) else " or ".join(left).capitalize() + "."


def arms_table(evidence: Evidence, rivals: Sequence[Contender]) -> Table:
    """The start and all arms, way by way, with what each took."""
    models, _ = evidence.planned
    start = start_of(evidence)
    contending = {rival.model for rival in rivals}
    rows: list[list[Cell]] = []
    if start is not None:
        rows.append(_arm(evidence, "start", start, None, best=False))
    for way in WAYS:
        arms = [m for m in models if "@" not in m and way_of(evidence, m) == way]
        rows += [_arm(evidence, way, m, start, best=m in contending) for m in arms] or [[way, *[None] * 7]]
    unit = unit_of(evidence)
    columns = ["way", "model", "mean score", "gain over start", "RL steps", "prompts", "samples", f"{unit}-seconds"]
    note = "Bold: the best of its way. Work counts experts and teachers too; the common start is left out."
    return Table("Arms", columns, rows, note)


def margins_table(evidence: Evidence, pairs: Sequence[Margin]) -> Table:
    """Every pair of ways, with what this study could have told apart."""
    rows: list[list[Cell]] = []
    for pair in pairs:
        left, right = pair.left, pair.right
        gap = Measured(pair.gap.value, (pair.gap.low, pair.gap.high), signed=True)
        says = f"{left.way} is better" if pair.gap.decided else "undecided"
        names = f"{left.way} − {right.way}"
        rows.append([names, left.model, right.model, gap, pair.gap.detectable, _cost_ratio(evidence, pair), says])
    columns = ["comparison", "left", "right", "margin", "detectable", "cost ratio", "says"]
    note = (
        "Margin: points of the mean score, with its 95% interval, paired by prompt and seed. Detectable: the true "
        "difference that four of five such studies would find. Where a way has several arms, each half of the prompts "
        "is scored by the arm that is best on the other half."
    )
    return Table("Margins", columns, rows, note)


def equal_table(evidence: Evidence, rivals: Sequence[Contender]) -> Table:
    """The contenders at equal steps, prompts and cost: each at its last evaluated point within the smallest total."""
    rows: list[list[Cell]] = []
    unit = unit_of(evidence)
    for basis in ("RL steps", "prompts", f"{unit}-seconds"):
        points = {rival.way: list(_points(evidence, rival, basis)) for rival in rivals}
        budget = min((max(p)[0] for p in points.values() if p), default=None)
        for way, reached in points.items():
            within = [p for p in reached if budget is not None and p[0] <= budget * 1.001]
            used, model = max(within) if within else (None, None)
            score = mean_score(evidence, model) if model else None
            rows.append([basis, budget, way, model, used, measured(score)])
    columns = ["at equal", "budget", "way", "model", "used", "mean score"]
    note = "A way is missing where no checkpoint within the budget was evaluated (keep_every keeps them)."
    return Table("Arms at equal budgets", columns, rows, note)


def measured(found: Estimate | None, *, best: bool = False, signed: bool = False, href: str = "") -> Measured | None:
    """An estimate as a cell."""
    if found is None:
        return None
    return Measured(found.value, (found.low, found.high), best=best, signed=signed, href=href)


def unit_of(evidence: Evidence) -> str:
    """What does the study's work: ``GPU`` or ``CPU``."""
    costs = [evidence.cost(name) for name in evidence.rl_stages()]
    return "GPU" if any(cost and cost.gpus for cost in costs) else "CPU"


def _arm(evidence: Evidence, way: str, model: str, start: str | None, *, best: bool) -> list[Cell]:
    _, suites = evidence.planned
    score = mean_score(evidence, model)
    before = mean_score(evidence, start) if start else None
    gain = (
        difference([evidence.grids[model][s] for s in suites], [evidence.grids[start][s] for s in suites])
        if score and before and start
        else None
    )
    work = effort(evidence, model) if way != "start" else None
    taken = [work.steps, work.prompts, work.samples, work.cost and work.cost.device] if work else [None] * 4
    return [way, model, measured(score, best=best), measured(gain, signed=True), *taken]


def _points(evidence: Evidence, rival: Contender, basis: str) -> Iterator[tuple[float, str]]:
    """(work, model) of the contender and of models on the way to it that have been evaluated."""
    for model in along(evidence, rival.model):
        used = _used(effort(evidence, model), basis)
        if used is not None and mean_score(evidence, model):
            yield used, model


def _used(work: Effort, basis: str) -> float | None:
    if basis == "RL steps":
        return work.steps
    if basis == "prompts":
        return work.prompts
    return work.cost.device if work.cost else None


def _cost_ratio(evidence: Evidence, pair: Margin) -> float | None:
    left, right = effort(evidence, pair.left.model).cost, effort(evidence, pair.right.model).cost
    return left.device / right.device if left and right and right.device else None


def _reason(evidence: Evidence, pair: Margin) -> str:
    gap, left, right = pair.gap, _named(pair.left), _named(pair.right)
    around = f"95% interval {interval(gap.low, gap.high)}"
    ratio = _cost_ratio(evidence, pair)
    cost = f", at {number(ratio, 2)} times the {unit_of(evidence)}-seconds" if ratio is not None else ""
    if gap.decided:
        return f"{left} scores {number(gap.value)} points more than {right} ({around}){cost}."
    return (
        f"{left} and {right} cannot be told apart: {number(gap.value, signed=True)} points ({around}){cost}. "
        f"A true difference of {number(gap.detectable)} would show in four of five such studies."
    )


def _named(rival: Contender) -> str:
    verbs: dict[Way, str] = {"mix": "mixed", "merge": "merged", "distil": "distilled"}
    best_of = f", the best of {rival.candidates}" if rival.candidates > 1 else ""
    return f"{rival.model} ({verbs[rival.way]}{best_of})"


def _absences(evidence: Evidence, rivals: Sequence[Contender]) -> Iterator[str]:
    """What keeps a way out of the comparison."""
    there = {rival.way for rival in rivals}
    names = [name for name in evidence.study.stages if way_of(evidence, name)]
    for way in WAYS:
        arms = [name for name in names if way_of(evidence, name) == way]
        if way not in there and arms:
            yield f"No arm that {_THIRD[way]} is evaluated on every suite yet: {', '.join(arms)} missing."
        elif way not in there and way != "distil":
            yield f"No arm of this study {_THIRD[way]}."


_THIRD: dict[Way, str] = {"mix": "mixes", "merge": "merges", "distil": "distils"}


def _reading(evidence: Evidence) -> str:
    seeds = len(evidence.seeds)
    span = (
        f"{seeds} seeds: intervals cover the choice of prompts and of the training run."
        if seeds > 1
        else "One seed: intervals cover the choice of prompts, and say nothing about another training run."
    )
    return f"Scores are Avg@k in percent, averaged over the suites. {span}"
