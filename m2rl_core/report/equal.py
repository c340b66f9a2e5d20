"""Who is ahead at equal budgets: every arm against the mixed run at that arm's own steps, prompts and cost.

Merging takes what its experts took, distilling the student's own work on top, so that one budget for all would leave an
arm out. A mixed run is one training from its start to its end and can be looked at on the way: its kept steps are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from m2rl_core.config import RlStage, split_reference
from m2rl_core.report.arms import Contender, along, effort, mean_score
from m2rl_core.report.evidence import Evidence, unit_of
from m2rl_core.report.tables import Cell, interval, measured, number
from m2rl_core.statistics.scores import Estimate, difference
from m2rl_core.types import Table

TOLERANCE = 0.02
"""Part of a budget that may differ where budgets are called equal."""


@dataclass(frozen=True, slots=True)
class Match:
    """An arm and the evaluated point of the mixed run that is closest to the arm's budget."""

    basis: str
    """``RL steps``, ``prompts`` or ``CPU-seconds``."""
    arm: Contender
    budget: float
    """What the arm took, experts and teachers included."""
    model: str
    """The mixed run's final model, or a kept step of it."""
    used: float
    gap: Estimate
    """Points of ``model`` − ``arm``."""
    wanted: str
    """What to evaluate for a budget that is equal; empty where this one is."""

    @property
    def portion(self) -> float:
        """Of the budget."""
        return self.used / self.budget

    @property
    def equal(self) -> bool:
        return abs(self.portion - 1) <= TOLERANCE

    @property
    def says(self) -> str:
        """Who is better: for certain where the better one had no larger budget, too."""
        if not self.gap.decided:
            return "undecided"
        mixed = self.gap.value > 0
        winner = "mix" if mixed else self.arm.way
        if self.equal or (self.portion < 1) == mixed:
            return f"{winner} is better" if self.equal else f"{winner} is better, with less"
        return f"{winner} is ahead, with more"


def matches(evidence: Evidence, rivals: Sequence[Contender]) -> list[Match]:
    """Basis by basis, one match per arm that does not mix; none where the study has no mixed arm."""
    mixed = next((rival for rival in rivals if rival.way == "mix"), None)
    if mixed is None:
        return []
    points = [model for model in along(evidence, mixed.model) if mean_score(evidence, model)]
    arms = [rival for rival in rivals if rival is not mixed]
    bases = ("RL steps", "prompts", f"{unit_of(evidence)}-seconds")
    found = [_match(evidence, mixed, arm, basis, points) for basis in bases for arm in arms]
    return [match for match in found if match is not None]


def equal_table(found: Sequence[Match]) -> Table:
    """The matches, with what is to be done where budgets are not equal yet."""
    rows: list[list[Cell]] = [
        [
            match.basis,
            f"{match.arm.way}: {match.arm.model}",
            match.budget,
            match.model,
            match.used,
            100 * match.portion,
            measured(match.gap, signed=True),
            match.says,
            match.wanted or None,
        ]
        for match in found
    ]
    columns = ["at equal", "arm", "budget", "mixed run", "used", "% of budget", "mix − arm", "says", "to be added"]
    note = (
        "Each arm beside the evaluated point of the mixed run that is closest to what the arm took, experts and "
        f"teachers included; budgets within {100 * TOLERANCE:g}% count as equal. Who is ahead with less is better; who "
        "is ahead with more is not known to be. To be added: the step of equal budget. 'keep_every' of its stage has "
        "to keep it, and 'models' of an eval stage to name it, with the arms' suites. The step of equal cost is known "
        "only after a run, and moves with the machine."
    )
    return Table("Arms against the mixed run, at the arms' own budgets", columns, rows, note)


def words(found: Sequence[Match]) -> Iterator[str]:
    """A sentence per basis."""
    for basis in dict.fromkeys(match.basis for match in found):
        yield f"At equal {basis}: {'; '.join(_words(match) for match in found if match.basis == basis)}."


def _words(match: Match) -> str:
    gap = f"{number(match.gap.value, signed=True)} points ({interval(match.gap.low, match.gap.high, signed=True)})"
    budget = number(match.budget, 0)
    share = "" if match.equal else f", {number(100 * match.portion, 0)}% of the budget"
    said = "" if match.equal else f", {match.says}"
    return f"{match.model} − {match.arm.model} {gap} at {budget}{share}{said}"


def _match(evidence: Evidence, mixed: Contender, arm: Contender, basis: str, points: Sequence[str]) -> Match | None:
    """``None`` where the work of either is not known."""
    budget = _used(evidence, arm.model, basis)
    known = {model: used for model in points if (used := _used(evidence, model, basis))}
    if not budget or not known:
        return None
    model = min(known, key=lambda each: (abs(known[each] - budget), known[each]))
    _, suites = evidence.planned
    grids = mixed.grids if model == mixed.model else [evidence.grids[model][suite] for suite in suites]
    gap = difference(grids, arm.grids)
    match = Match(basis, arm, budget, model, known[model], gap, wanted="")
    return match if match.equal else replace(match, wanted=_wanted(evidence, mixed.model, basis, budget))


def _wanted(evidence: Evidence, mixed: str, basis: str, budget: float) -> str:
    """The point of the mixed run, evaluated or not, that has taken as much as the budget."""
    stem = split_reference(mixed)[0]
    stage = evidence.stage(stem)
    assert isinstance(stage, RlStage)
    steps = range(1, stage.steps + 1)
    reached = bisect_right(
        steps, budget * (1 + TOLERANCE), key=lambda step: _used(evidence, f"{stem}@{step}", basis) or 0.0
    )
    if reached == 0 and isinstance(evidence.stage(stage.init), RlStage):
        return _wanted(evidence, stage.init, basis, budget)
    if reached == stage.steps:
        return f"more steps of {stem}"
    return f"{stem}@{max(reached, 1)}"


def _used(evidence: Evidence, model: str, basis: str) -> float | None:
    work = effort(evidence, model)
    if basis == "RL steps":
        return work.steps
    if basis == "prompts":
        return work.prompts
    return work.cost.device if work.cost else None
