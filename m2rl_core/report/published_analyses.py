"""What the paper's analyses print (arXiv 2602.12566v3, Tables 5 to 7) beside those of a study that repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from m2rl_core.config import AnalyzeStage, MergeStage, merges_some
from m2rl_core.paper.counterparts import counterpart
from m2rl_core.registry import use_of
from m2rl_core.report.analyses import analyses
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.tables import Cell, measured
from m2rl_core.statistics.scores import difference, estimate
from m2rl_core.types import Table

__all__ = ["JUDGES", "analyses_beside_paper"]

_APART = (0.46, 0.47, 0.46, 0.46, 0.45, 0.45, 0.45)
_CLOSE = (0.47, 0.48, 0.47, 0.48, 0.47, 0.46, 0.46)
OVERLAPS = {
    frozenset({"math", "coding"}): _CLOSE,
    frozenset({"math", "science"}): _APART,
    frozenset({"math", "if"}): _CLOSE,
    frozenset({"math", "agent"}): _CLOSE,
    frozenset({"coding", "science"}): _APART,
    frozenset({"coding", "if"}): _CLOSE,
    frozenset({"coding", "agent"}): (0.47, 0.48, 0.48, 0.48, 0.47, 0.46, 0.47),
    frozenset({"science", "if"}): _APART,
    frozenset({"science", "agent"}): _APART,
    frozenset({"if", "agent"}): _CLOSE,
}
"""Table 5: two domains → Jaccard overlap in layer 17 of Q, K, V, O, and the FFN's down, up and gate."""

PAIRS = {
    ("math", "coding"): {"aime24": 80.29, "aime25": 72.44},
    ("math", "science"): {"aime24": 75.07, "aime25": 67.65},
    ("math", "if"): {"aime24": 78.11, "aime25": 69.04},
    ("math", "agent"): {"aime24": 72.94, "aime25": 63.31},
    ("coding", "math"): {"lcb-v5": 60.42, "lcb-v6": 57.17},
    ("coding", "science"): {"lcb-v5": 63.84, "lcb-v6": 60.00},
    ("coding", "if"): {"lcb-v5": 59.30, "lcb-v6": 59.43},
    ("coding", "agent"): {"lcb-v5": 66.49, "lcb-v6": 62.86},
}
"""Table 6: (domain, partner) → scores of the merge of their experts on the domain's suites."""
ALONE = {"aime24": 77.66, "aime25": 70.42, "lcb-v5": 65.00, "lcb-v6": 58.86}
"""The same of the domain's expert alone."""

JUDGED = ("aime24", "ifeval", "lcb-v5", "gpqa-diamond")
SAID = ("generation", "outcome", "process")
JUDGES = {
    "start": (56.04, 72.9, 91.8, 79.48, 81.6, 72.3, 55.92, 84.4, 95.7, 42.68, 48.3, 73.4),
    "math": (77.66, 81.2, 93.8, 80.59, 77.8, 64.2, 59.59, 87.2, 93.7, 58.46, 60.9, 56.2),
    "coding": (61.61, 75.8, 82.9, 78.74, 81.0, 65.5, 65.00, 87.5, 94.2, 46.59, 51.2, 67.5),
    "science": (64.69, 67.1, 86.2, 78.93, 84.6, 71.0, 57.66, 90.9, 97.1, 53.79, 59.1, 78.5),
    "if": (67.81, 83.8, 90.4, 90.94, 87.4, 61.6, 60.80, 82.4, 91.6, 49.62, 56.0, 72.3),
    "agent": (57.60, 76.7, 95.3, 81.33, 85.1, 88.5, 62.95, 91.6, 99.4, 46.09, 55.1, 81.1),
    "ties": (81.15, 82.9, 93.3, 92.61, 91.0, 79.1, 60.84, 88.4, 95.8, 57.58, 59.9, 61.1),
    "mixed": (81.20, 86.7, 86.2, 93.53, 80.5, 27.5, 63.21, 72.3, 76.1, 53.62, 55.9, 42.6),
    "distilled": (80.52, 85.8, 91.2, 90.20, 87.5, 66.5, 63.26, 85.0, 94.7, 53.66, 57.1, 71.4),
}
"""Table 7: who a model is → what :data:`SAID` names on each suite of :data:`JUDGED`. Its "Merging" is TIES: the scores
are those of Table 4."""


def analyses_beside_paper(evidence: Evidence) -> dict[str, Table]:
    """Tables 5, 6 and 7, as far as the study has them."""
    found = {
        "paper_overlaps": _overlaps(evidence),
        "paper_pairs": _pairs(evidence),
        "paper_judges": _judges(evidence),
    }
    return {name: table for name, table in found.items() if table is not None}


def _overlaps(evidence: Evidence) -> Table | None:
    """Table 5; domains are told by the experts' names in the analyzer's rows."""
    ours = _table(evidence, "weight-shift", "jaccard-layer")
    if ours is None:
        return None
    rows: list[list[Cell]] = []
    for label, *overlaps in ours.rows:
        theirs = OVERLAPS.get(frozenset(counterpart(evidence.study, name) for name in str(label).split(" - ")))
        if theirs is not None:
            rows += [[label, "this study", *overlaps], [label, "the paper", *theirs]]
    note = "The paper: layer 17; random masks of 30% overlap by 0.18. What is random here stands in the analysis."
    return Table(f"{ours.title}, beside the paper's", ["domains", "of", *ours.columns[1:]], rows, note)


def _pairs(evidence: Evidence) -> Table | None:
    """Table 6: every merge of two experts on the suites of either domain."""
    some = [model for model in evidence.planned[0] if merges_some(evidence.study, model)]
    rows = [row for model in some for row in _pair(evidence, model)]
    columns = ["merge", "domain", "partner", "suite", "this study", "change", "the paper", "change there"]
    note = "Change: points above the domain's expert alone."
    return Table("Merges of two experts beside the paper's", columns, rows, note) if rows else None


def _pair(evidence: Evidence, model: str) -> Iterator[list[Cell]]:
    stage = evidence.stage(model)
    assert isinstance(stage, MergeStage)
    experts = {counterpart(evidence.study, name): name for name in stage.experts}
    for domain, partner in ((one, other) for one in experts for other in experts if one != other):
        for suite, theirs in PAIRS.get((domain, partner), {}).items():
            merged, alone = evidence.grid(model, suite), evidence.grid(experts[domain], suite)
            score = measured(estimate([merged]), href=evidence.score_link(model, suite)) if merged else None
            change = measured(difference([merged], [alone]), signed=True) if merged and alone else None
            yield [model, domain, partner, suite, score, change, theirs, theirs - ALONE[suite]]


def _judges(evidence: Evidence) -> Table | None:
    """Table 7, on the suites of the paper."""
    ours = _table(evidence, "self-verification", "self-verification")
    if ours is None:
        return None
    names = [f"{suite}: {what}" for suite in JUDGED for what in SAID]
    rows: list[list[Cell]] = []
    for row in ours.rows:
        model, cells = str(row[0]), dict(zip(ours.columns, row, strict=True))
        if theirs := JUDGES.get(counterpart(evidence.study, model)):
            rows += [
                [model, "this study", *_with_means([cells.get(name) for name in names])],
                [model, "the paper", *_with_means(theirs)],
            ]
    note = "Means are over these suites, where all of them are known. How the paper asked its judges is not known."
    columns = ["model", "of", *names, *(f"mean: {what}" for what in SAID)]
    return Table("Generation and self-verification beside the paper's", columns, rows, note)


def _with_means(cells: Sequence[Cell]) -> list[Cell]:
    means = [_mean(cells[at :: len(SAID)]) for at in range(len(SAID))]
    return [*cells, *means]


def _mean(cells: Sequence[Cell]) -> float | None:
    known = [cell for cell in cells if isinstance(cell, int | float)]
    return sum(known) / len(known) if len(known) == len(cells) else None


def _table(evidence: Evidence, analyzer: str, name: str) -> Table | None:
    """A table of the first finished stage with that analyzer, all seeds together."""
    stages = [
        n for n, s in evidence.study.stages.items() if isinstance(s, AnalyzeStage) and use_of(s.analyzer)[0] == analyzer
    ]
    tables = {key: table for section in analyses(evidence) for key, table in section.tables.items()}
    return next((tables[f"{stage}.{name}"] for stage in stages if f"{stage}.{name}" in tables), None)
