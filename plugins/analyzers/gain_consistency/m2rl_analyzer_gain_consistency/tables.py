"""Consistencies as tables and figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m2rl_analyzer_gain_consistency.answers import Answers, Floats
from m2rl_analyzer_gain_consistency.consistency import Consistency
from m2rl_analyzer_gain_consistency.gains import plain, splits
from m2rl_core.statistics.scores import summarise
from m2rl_core.types import Figure, Table, Way

Cell = str | float | None

COLUMNS = [
    "suite",
    "model",
    "arm",
    "prompts",
    "with 4 samples",
    "cosine (the paper's)",
    "corrected",
    "corrected, low",
    "corrected, high",
    "cosine of halves",
    "ceiling of halves",
    "by chance",
    "by chance, equally hard",
    "p",
]


@dataclass(frozen=True, slots=True)
class Results:
    """What was found of every arm on every suite."""

    arms: Mapping[str, Way]
    suites: Mapping[str, str]
    """Suite → its domain."""
    found: Mapping[tuple[str, str], Consistency]
    """(suite, arm); missing where the arm was not evaluated, or too few prompts have verdicts enough."""


def consistencies(results: Results) -> Table:
    """Figure 5 with what is needed to read it."""
    rows: list[list[Cell]] = []
    for suite in results.suites:
        for arm, way in results.arms.items():
            one = results.found.get((suite, arm))
            rows.append([suite, arm, way, *(_cells(one) if one else [None] * (len(COLUMNS) - 3))])
    note = (
        "Cosine of an arm's gains with the union of the experts' gains. Corrected: without the noise of samples, with "
        "a 95% interval over prompts; 1 is perfect. Cosine of halves: of vectors that share no samples; the ceiling is "
        "what it could reach. By chance: the same with prompts in random order, any or equally hard ones; p is of the "
        "latter. All but the first cosine need prompts with 4 samples of every model."
    )
    return Table("Gain consistency with the union of the experts", COLUMNS, rows, note)


def _cells(one: Consistency) -> list[Cell]:
    interval = summarise(one.corrected, one.draws)
    values = [one.paper, one.corrected, interval.low, interval.high, one.halves, one.ceiling]
    chance = [one.null.mean, one.level_null.mean, one.level_null.p(one.halves)]
    return [one.prompts, one.corrected_prompts, *map(number, values + chance)]


def bars(results: Results, what: str, title: str) -> Figure:
    """Figure 5: one bar per suite and arm; ``what`` names a field of Consistency."""
    series = {
        arm: [
            number(getattr(results.found[suite, arm], what)) if (suite, arm) in results.found else None
            for suite in results.suites
        ]
        for arm in results.arms
    }
    return Figure(title, "bars", list(results.suites), series, "suite", "cosine")


def unions(experts: Sequence[str], by_suite: Mapping[str, Answers]) -> Table:
    """How much the experts' union gains, and how much of that is the luck of choosing the best of noisy experts."""
    rows: list[list[Cell]] = []
    for suite, answers in by_suite.items():
        pairs = zip(answers.experts_EIK, experts, strict=True)
        best, one = max((_points(_gain(answers, each)), name) for each, name in pairs)
        raw_I, _ = plain(answers)
        rows.append([suite, len(answers), one, best, _points(raw_I), _worth(answers.enough)])
    columns = ["suite", "prompts", "best expert", "its gain", "union", "union, valued on other samples"]
    note = "Points over the base, mean over prompts. A union that is valued on the samples that chose it is too good."
    return Table("Gains of the experts' union", columns, rows, note)


def _worth(answers: Answers) -> float | None:
    """What the union gains where choices are valued on other samples than they are made on, in points."""
    if not answers.prompts:
        return None
    return 100 * float(np.mean([valued.union_HI.mean() for _, valued in splits(answers)]))


def _gain(answers: Answers, model_IK: Floats) -> Floats:
    return np.asarray(np.nanmean(model_IK, axis=1) - np.nanmean(answers.base_IK, axis=1))


def _points(gains_I: Floats) -> float:
    return 100 * float(gains_I.mean())


def number(value: float) -> float | None:
    """``None`` for NaN, which shows as missing."""
    return float(value) if np.isfinite(value) else None
