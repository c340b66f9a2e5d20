"""The question of the study, answered: mix, merge or distil?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m2rl_core.report.arms import (
    WAYS,
    Contender,
    Margin,
    contenders,
    effort,
    margins,
    mean_score,
    start_of,
    way_of,
)
from m2rl_core.report.equal import Match, equal_table, matches, words
from m2rl_core.report.evidence import Evidence, unit_of
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Measured, interval, measured, number
from m2rl_core.statistics.scores import difference
from m2rl_core.types import Table, Way


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first screen."""

    answer: str
    """E.g. ``Merge.``, ``Mix or distil.`` or ``Undecided.``"""
    reasons: list[str]
    margins: list[Margin]
    equal: list[Match]
    """The arms against the mixed run at equal budgets."""
    section: Section
    """The same in numbers."""


def verdict(evidence: Evidence) -> Verdict:
    """Compare the best arm of each way, over all suites."""
    rivals = contenders(evidence)
    pairs = margins(rivals)
    equal = matches(evidence, rivals)
    reasons = [_reason(evidence, pair) for pair in pairs]
    reasons += [next(words(equal))] if equal else []
    reasons += _absences(evidence, rivals)
    tables = {"arms": arms_table(evidence, rivals)}
    if pairs:
        tables["margins"] = margins_table(evidence, pairs)
    if equal:
        tables["equal"] = equal_table(equal)
    section = Section("arms", "The arms", _reading(evidence), tables)
    return Verdict(answer(rivals, pairs), reasons, pairs, equal, section)


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
