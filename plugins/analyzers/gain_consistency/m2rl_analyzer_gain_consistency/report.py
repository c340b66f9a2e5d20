"""From a lab to findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2rl_analyzer_gain_consistency import tables
from m2rl_analyzer_gain_consistency.answers import Answers, aligned, rewards
from m2rl_analyzer_gain_consistency.claims import claims
from m2rl_analyzer_gain_consistency.consistency import Consistency, consistency
from m2rl_analyzer_gain_consistency.tables import Results
from m2rl_core.errors import DataError
from m2rl_core.interfaces import Lab
from m2rl_core.types import Findings

if TYPE_CHECKING:
    from m2rl_analyzer_gain_consistency import GainConsistency

Scores = Mapping[str, Sequence[Mapping[str, Any]]]
"""Suite → records."""


def findings(lab: Lab, config: GainConsistency.Config) -> Findings:
    """See :meth:`m2rl_analyzer_gain_consistency.GainConsistency.run`."""
    base = config.base or lab.start
    if base is None:
        raise DataError("gain-consistency needs a base", then="name the model that the others were trained from")
    experts = list(dict.fromkeys(model for model in lab.experts.values() if model != base))
    arms = {arm: way for arm, way in lab.arms.items() if arm != base}
    for what, there in (("expert of one domain", experts), ("mixed, merged or distilled model", arms)):
        if not there:
            raise DataError(f"gain-consistency finds no {what}", found=", ".join(lab.models))
    ours, theirs = lab.scores(base), [lab.scores(expert) for expert in experts]
    suites = _suites(base, ours, theirs)
    combined = {arm: scores for arm in arms if (scores := _scores(lab, arm))}
    found = dict(_measured(suites, ours, theirs, combined))
    results = Results(arms, suites, found)
    return Findings(
        tables={
            "gain-consistency": tables.consistencies(results),
            "gain-union": tables.unions(experts, dict(_unions(suites, ours, theirs))),
        },
        figures={
            "gain-consistency": tables.bars(results, "paper", "Gain consistency, as in Figure 5"),
            "gain-consistency-corrected": tables.bars(results, "corrected", "Gain consistency without sampling noise"),
        },
        claims=claims(results),
    )


def _scores(lab: Lab, arm: str) -> Scores:
    """Of an arm, empty where it was not evaluated: the tables then show it as missing."""
    try:
        return lab.scores(arm)
    except DataError:
        return {}


def _suites(base: str, ours: Scores, theirs: Sequence[Scores]) -> dict[str, str]:
    """Suite → its domain, of suites that the base and all experts have answered."""
    shared = [suite for suite in ours if ours[suite] and all(suite in each for each in theirs)]
    if not shared:
        raise DataError(
            f"there is no suite on which '{base}' and all experts were evaluated",
            found=", ".join(ours),
            then="let a stage of kind eval score the base and the experts on the same suites",
        )
    return {suite: str(ours[suite][0].get("domain", "")) for suite in shared}


def _measured(
    suites: Mapping[str, str], ours: Scores, theirs: Sequence[Scores], combined: Mapping[str, Scores]
) -> Iterator[tuple[tuple[str, str], Consistency]]:
    for suite in suites:
        for arm, scores in combined.items():
            if suite in scores:
                answers = _answers(suite, ours, theirs, scores)
                if answers.prompts:
                    yield (suite, arm), consistency(answers, suite, arm)


def _unions(suites: Mapping[str, str], ours: Scores, theirs: Sequence[Scores]) -> Iterator[tuple[str, Answers]]:
    for suite in suites:
        answers = _answers(suite, ours, theirs, ours)
        if answers.prompts:
            yield suite, answers


def _answers(suite: str, ours: Scores, theirs: Sequence[Scores], arm: Scores) -> Answers:
    return aligned(rewards(ours[suite]), [rewards(each[suite]) for each in theirs], rewards(arm[suite]))
