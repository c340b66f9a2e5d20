"""The study's models beside models that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from m2rl_core.report.arms import Contender, complete, contenders, mean_score, references
from m2rl_core.report.evidence import FILES, Evidence
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, measured
from m2rl_core.statistics.scores import Grid, difference, estimate
from m2rl_core.types import Table


def imported(evidence: Evidence) -> Section | None:
    """Table 8 of the paper: every reference model, and the best arm of each way minus each of them."""
    models, suites = evidence.planned
    beside = [name for name in references(evidence) if name in models]
    if not beside:
        return None
    rows = [_scored(evidence, name) for name in beside]
    for rival in contenders(evidence):
        rows.append([f"{rival.model} ({rival.way})", *_cells(evidence, rival.model, evidence.grids[rival.model])])
        rows += [row for name in beside for row in _margin(evidence, rival, name)]
    note = (
        "A model of kind 'model' that no stage builds on. Differences are paired by prompt, in points; of several arms "
        "of one way, each half of the prompts is scored by the arm that is best on the other half."
    )
    table = Table("Beside imported models", ["model", *suites, "mean"], rows, note)
    text = "The best arm of each way beside models that were trained elsewhere (Table 8 of the paper)."
    return Section("imported", "Imported models", text, {"imported": table})


def _scored(evidence: Evidence, model: str) -> list[Cell]:
    return [model, *_cells(evidence, model, evidence.grids.get(model, {}))]


def _cells(evidence: Evidence, model: str, grids: Mapping[str, Grid]) -> list[Cell]:
    """A score per suite, and the mean."""
    suites = evidence.planned[1]
    found: list[Cell] = [
        measured(estimate([grids[s]]), href=evidence.score_link(model, s)) if s in grids else None for s in suites
    ]
    return [*found, measured(mean_score(evidence, model), href=FILES)]


def _margin(evidence: Evidence, rival: Contender, model: str) -> list[list[Cell]]:
    """One row, where the reference has been evaluated like the arm."""
    suites = evidence.planned[1]
    if not complete(evidence, model, suites):
        return []
    theirs = [evidence.grids[model][s] for s in suites]
    pairs = [([one], [other]) for one, other in zip(rival.grids, theirs, strict=True)]
    gaps = [difference(one, other) for one, other in [*pairs, (rival.grids, theirs)]]
    return [[f"{rival.way} − {model}", *(measured(gap, signed=True, href=FILES) for gap in gaps)]]
