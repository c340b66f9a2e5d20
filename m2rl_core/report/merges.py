"""The ways to merge, side by side, and what choosing their settings has brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from m2rl_core.config import merges_some
from m2rl_core.report.arms import mean_score, way_of
from m2rl_core.report.evidence import FILES, Evidence
from m2rl_core.report.scores import best_marked, final_models, score
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Measured
from m2rl_core.types import Table


def merges(evidence: Evidence) -> Section | None:
    """Table 4 of the paper: the ways to merge, and distillation beside them."""
    models = final_models(evidence)
    arms = [m for m in models if way_of(evidence, m) in ("merge", "distil")]
    some = [m for m in models if merges_some(evidence.study, m)]
    if not arms:
        return None
    tables = {"merges": _compared(evidence, "Ways to merge", arms), **_selections(evidence, [*arms, *some])}
    if some:
        tables["some_merges"] = _known(_compared(evidence, "Merges of some of the experts", some))
    return Section("merges", "Merges compared", "Merging methods side by side (Table 4).", tables)


def _compared(evidence: Evidence, title: str, models: Sequence[str]) -> Table:
    """A row per model, a column per suite."""
    suites = evidence.planned[1]
    columns = [
        best_marked([score(evidence, m, s) for m in models], [evidence.score_link(m, s) for m in models])
        for s in suites
    ]
    columns.append(best_marked([mean_score(evidence, m) for m in models], [FILES] * len(models)))
    rows: list[list[Cell]] = [[model, *(column[i] for column in columns)] for i, model in enumerate(models)]
    return Table(title, ["model", *suites, "mean"], rows, "Bold: the highest of its column.")


def _known(table: Table) -> Table:
    """Without the columns that no row fills, if any column is filled: merges of some are meant for some suites."""
    kept = [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]
    if len(kept) == 1:
        return table
    return replace(table, columns=[table.columns[i] for i in kept], rows=[[row[i] for i in kept] for row in table.rows])


def _selections(evidence: Evidence, arms: Sequence[str]) -> dict[str, Table]:
    """What the merges that chose among settings gained by choosing, one row per search; no table without a search."""
    rows: list[list[Cell]] = []
    for arm in arms:
        for seed, lines in evidence.metrics(arm).items():
            name = arm if len(evidence.seeds) == 1 else f"{arm}, seed {seed}"
            rows += [_selection(name, line) for line in lines[-1:] if "chosen" in line]
    note = (
        "Mean KL(expert ‖ model) in millinats per token of the experts' stored rollouts, on training prompts that did "
        "not choose; no suite was looked at. Gain: the stage's own settings minus the chosen ones, with a 95% interval "
        "over prompts."
    )
    columns = ["model", "candidates", "chosen", "own settings", "chosen settings", "gain"]
    return {"selection": Table("Gain from selection", columns, rows, note)} if rows else {}


def _selection(name: str, line: Mapping[str, Any]) -> list[Cell]:
    """One search, from the last line of its metrics; a distance that was no number is missing."""
    own, chosen, gain, low, high = (
        None if (found := line[key]) is None else 1000 * found
        for key in ("kl_own", "kl", "gain", "gain_low", "gain_high")
    )
    around = None if low is None or high is None else (low, high)
    cell = None if gain is None else Measured(gain, around, signed=True)
    return [name, line["candidates"], line["chosen"], own, chosen, cell]
