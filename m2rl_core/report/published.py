"""The paper's own numbers (arXiv 2602.12566v3, Tables 2 to 8) beside a study that repeats it."""

from __future__ import annotations

from collections.abc import Iterator

from m2rl_core.paper.counterparts import counterpart, gpu_hours
from m2rl_core.report.arms import mean_score
from m2rl_core.report.evidence import FILES, Evidence
from m2rl_core.report.published_analyses import analyses_beside_paper
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link, measured
from m2rl_core.statistics.scores import estimate
from m2rl_core.types import Table

__all__ = ["SCORES", "beside_paper"]

SUITES = ("aime24", "aime25", "lcb-v5", "lcb-v6", "hle", "gpqa-diamond", "ifeval", "ifbench", "bfcl-v3")
SCORES = {
    "base": (9.65, 5.68, 16.50, 18.29, 4.45, 20.08, 35.12, 11.90, 29.73),
    "start": (56.04, 51.30, 55.92, 52.00, 5.75, 42.68, 79.48, 38.44, 50.05),
    "math": (77.66, 70.42, 59.59, 54.57, 6.39, 58.46, 80.59, 40.14, 50.32),
    "coding": (61.61, 55.16, 65.00, 58.86, 5.92, 46.59, 78.74, 39.46, 50.64),
    "science": (64.69, 56.35, 57.66, 53.14, 6.26, 53.79, 78.93, 40.14, 49.56),
    "if": (67.81, 60.52, 60.80, 53.14, 7.04, 49.62, 90.94, 59.52, 50.55),
    "agent": (57.60, 54.64, 62.95, 54.29, 5.98, 46.09, 81.33, 40.82, 59.14),
    "mixed": (81.20, 73.39, 63.21, 56.57, 7.18, 53.62, 93.53, 61.22, 60.74),
    "average": (67.55, 64.38, 58.92, 57.71, 6.16, 50.13, 84.84, 40.82, 53.17),
    "sce": (80.73, 74.84, 62.01, 56.57, 7.28, 56.57, 93.35, 53.74, 61.19),
    "ties": (81.15, 74.74, 60.84, 57.71, 7.92, 57.58, 92.61, 54.76, 61.73),
    "dare+ties": (79.84, 75.89, 60.71, 57.71, 7.41, 57.07, 90.94, 56.12, 61.05),
    "task-arithmetic": (80.47, 76.61, 57.97, 52.57, 6.39, 54.04, 93.16, 61.56, 59.25),
    "dare+task-arithmetic": (81.09, 76.18, 58.65, 56.00, 6.39, 55.56, 93.72, 62.59, 58.76),
    "distilled": (80.52, 74.53, 63.26, 57.14, 7.37, 53.66, 90.20, 56.46, 60.98),
    "qwen3-4b": (73.80, 65.60, 54.20, 46.86, 4.73, 55.90, 81.90, 27.55, 65.90),
}
"""Who a model is in the paper → its scores in the order of :data:`SUITES`; names as of
:func:`m2rl_core.paper.counterparts.counterpart`."""


def beside_paper(evidence: Evidence) -> Section | None:
    """Scores and cost in pairs of rows, for a study that says that it repeats the paper's."""
    if evidence.study.reproduces != "paper":
        return None
    models, suites = evidence.planned
    known = {m: who for m in models if "@" not in m and (who := counterpart(evidence.study, m)) in SCORES}
    scored = [row for model, who in known.items() for row in _scored(evidence, model, who, suites)]
    note = "The paper gives no intervals, and not how many samples it drew. Means are over the suites of the paper."
    tables = {"paper_scores": Table("Scores beside the paper's", ["model", "of", *suites, "mean"], scored, note)}
    stated = gpu_hours(evidence.study)
    whole, ours = sum(stated.values()), _hours(evidence, list(stated))
    hours = [_cost(evidence, name, theirs, ours, whole) for name, theirs in stated.items()]
    columns = ["stage", "device-hours", "% of all", "the paper's GPU hours", "% of all there"]
    why = "Other GPUs and other engines differ in hours; shares tell more. The paper: Table 2."
    tables["paper_cost"] = Table("Cost beside the paper's", columns, hours, why)
    tables |= analyses_beside_paper(evidence)
    text = (
        "This study's numbers and the paper's own, from its Tables 2 to 8; Table 1 stands beside the blend. Its "
        "figures 2 to 5 and 9 are pictures, whose numbers no table gives, and 6 to 8 draw Table 7."
    )
    return Section("paper", "Beside the paper", text, tables)


def _scored(evidence: Evidence, model: str, who: str, suites: list[str]) -> Iterator[list[Cell]]:
    grids, theirs = evidence.grids.get(model, {}), dict(zip(SUITES, SCORES[who], strict=True))
    found: list[Cell] = [
        measured(estimate([grids[s]]), href=evidence.score_link(model, s)) if s in grids else None for s in suites
    ]
    yield [model, "this study", *found, measured(mean_score(evidence, model), href=FILES)]
    yield [model, "the paper", *(theirs.get(suite) for suite in suites), sum(theirs.values()) / len(theirs)]


def _hours(evidence: Evidence, stages: list[str]) -> float | None:
    costs = [evidence.cost(name) for name in stages]
    known = [cost.device / 3600 for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None


def _cost(evidence: Evidence, name: str, theirs: float, ours: float | None, whole: float) -> list[Cell]:
    cost = evidence.cost(name)
    hours = cost.device / 3600 if cost else None
    portion = 100 * hours / ours if hours is not None and ours else None
    label = Link(name, evidence.stage_link(name, "times.jsonl"))
    return [label, hours, portion, theirs, 100 * theirs / whole]
