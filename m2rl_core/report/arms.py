"""The arms of a study: which models mix, merge or distil, what each took to make, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m2rl_core.config import (
    AnalyzeStage,
    EvalStage,
    MergeStage,
    ModelStage,
    RlStage,
    SftStage,
    combines,
    expert_domain,
    split_reference,
    start_model,
)
from m2rl_core.config import references as named
from m2rl_core.report.evidence import Cost, Evidence
from m2rl_core.statistics.scores import Estimate, Grid, best, crossfit, difference, estimate
from m2rl_core.types import Way

WAYS: tuple[Way, ...] = ("mix", "merge", "distil")
NO_MAKERS = (EvalStage, AnalyzeStage)
"""Stages that name models without making one of them."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a model took beyond the common start: its own stage, its experts or teachers, and those before them."""

    steps: int
    """Of reinforcement learning."""
    prompts: int
    samples: int
    cost: Cost | None
    """``None`` where the seconds of a part are missing."""


@dataclass(frozen=True, slots=True)
class Contender:
    """The best arm of one way, ready to be compared."""

    way: Way
    model: str
    """The arm with the highest mean score."""
    grids: list[Grid]
    """One per suite. Of several candidates, the one that is best on one half of the items scores the other half, so
    that choosing adds no bias."""
    candidates: int
    """How many arms go this way."""


@dataclass(frozen=True, slots=True)
class Margin:
    """``left − right`` over the same suites, in points."""

    left: Contender
    right: Contender
    gap: Estimate


def way_of(evidence: Evidence, model: str) -> Way | None:
    """How a model combines domains; ``None`` for a start, an expert, or a kept step of something else."""
    return combines(evidence.study, model)


def expert_of(evidence: Evidence, model: str) -> str | None:
    """The one domain that an expert was trained on."""
    return expert_domain(evidence.study, model)


def start_of(evidence: Evidence) -> str | None:
    """The model that reinforcement learning departs from: the first ``init`` that is no rl stage."""
    return start_model(evidence.study)


def references(evidence: Evidence) -> list[str]:
    """Imported models that no stage of the study builds on: they are there to be compared with."""
    stages = evidence.study.stages
    used = {split_reference(m)[0] for s in stages.values() if not isinstance(s, NO_MAKERS) for _, m in named(s)}
    return [name for name, stage in stages.items() if isinstance(stage, ModelStage) and name not in used]


def effort(evidence: Evidence, model: str) -> Effort:
    """What it took to make a model; kept steps count up to their step."""
    steps = prompts = samples = 0
    costs: list[Cost | None] = []
    for name, until in _makers(evidence, model).items():
        stage = evidence.stage(name)
        if isinstance(stage, RlStage):
            taken = stage.steps if until is None else until
            drawn = taken * stage.prompts + _refilled(evidence, name, taken)
            steps, prompts, samples = steps + taken, prompts + drawn, samples + drawn * stage.group
        costs.append(evidence.cost(name, until))
    known = [cost for cost in costs if cost is not None]
    return Effort(steps, prompts, samples, sum(known, Cost()) if len(known) == len(costs) else None)


def _refilled(evidence: Evidence, name: str, steps: int) -> int:
    """Prompts that a stage drew beyond its quotas, the mean over its seeds."""
    runs = [sum(line.get("dropped", 0) for line in lines[:steps]) for lines in evidence.metrics(name).values()]
    return round(sum(runs) / len(runs)) if runs else 0


def along(evidence: Evidence, model: str) -> Iterator[str]:
    """Models on the way to ``model``, itself included, that the study evaluates: kept steps, and the stages of
    reinforcement learning that it continues."""
    stage = evidence.stage(model)
    name, until = split_reference(model)
    for each in evidence.planned[0]:
        stem, step = split_reference(each)
        if each == model or (stem == name and step is not None and (until is None or step <= until)):
            yield each
    if isinstance(stage, RlStage) and isinstance(evidence.stage(stage.init), RlStage):
        yield from along(evidence, stage.init)


def contenders(evidence: Evidence) -> list[Contender]:
    """The best arm of each way that has at least one arm evaluated on every suite with every seed."""
    models, suites = evidence.planned
    found: list[Contender] = []
    for way in WAYS:
        ready = [m for m in models if "@" not in m and way_of(evidence, m) == way and complete(evidence, m, suites)]
        if ready:
            grids = [[evidence.grids[m][s] for s in suites] for m in ready]
            found.append(Contender(way, ready[best(grids)], crossfit(grids), len(ready)))
    return found


def margins(rivals: Sequence[Contender]) -> list[Margin]:
    """Every pair, the way that scores higher on the left."""
    found = []
    for i, one in enumerate(rivals):
        for other in rivals[i + 1 :]:
            gap = difference(one.grids, other.grids)
            left, right = (one, other) if gap.value >= 0 else (other, one)
            found.append(Margin(left, right, difference(left.grids, right.grids)))
    return found


def complete(evidence: Evidence, model: str, suites: Sequence[str]) -> bool:
    """True where a model has been evaluated on all suites, with all seeds and the same items as others."""
    for suite in suites:
        one = evidence.grid(model, suite)
        items = next((g[suite].items for g in evidence.grids.values() if suite in g), ())
        if one is None or set(one.seeds) != set(evidence.seeds) or one.items != items:
            return False
    return bool(suites)


def mean_score(evidence: Evidence, model: str) -> Estimate | None:
    """The mean over all suites; ``None`` where one is missing."""
    _, suites = evidence.planned
    return estimate([evidence.grids[model][s] for s in suites]) if complete(evidence, model, suites) else None


def _makers(evidence: Evidence, model: str) -> dict[str, int | None]:
    """Stage → steps, or all, of everything from the common start, exclusive, to ``model``, inclusive.

    Where a stage is named twice, as the start of a cascade and with a kept step as a teacher, most steps count.
    """
    found: dict[str, int | None] = {}
    for name, until in _making(evidence, model):
        known = found.get(name, 0)
        found[name] = None if known is None or until is None else max(known, until)
    return found


def _making(evidence: Evidence, model: str) -> Iterator[tuple[str, int | None]]:
    stage = evidence.stage(model)
    if isinstance(stage, RlStage | MergeStage) or (isinstance(stage, SftStage) and stage.rollouts):
        for _, source in named(stage):
            yield from _making(evidence, source)
        yield split_reference(model)
