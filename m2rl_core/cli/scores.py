"""What a study has measured so far, for the terminal; its report says how certain that is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from m2rl_core.cli.tables import empty, show

if TYPE_CHECKING:
    from m2rl_core.config import Study
    from m2rl_core.study import Node

__all__ = ["scores", "show_scores"]


def show_scores(study: Study, nodes: Sequence[Node]) -> None:
    """Print the scores, if there are any."""
    if (table := scores(study, nodes)) is not None:
        show(table)


def scores(study: Study, nodes: Sequence[Node]) -> Table | None:
    """A row for each model and a column for each suite; ``None`` where nothing has been evaluated."""
    from m2rl_core.report.evidence import Evidence

    evidence = Evidence(study, nodes, Path())
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in evidence.evaluations:
        found[one.model, one.suite].append(one.scores["score"])
    if not found:
        return None
    models, suites = evidence.planned
    table = empty("model", numbers=suites, title="Avg@k in percent")
    for model in models:
        table.add_row(model, *(_mean(found[model, suite]) for suite in suites))
    return table


def _mean(seeds: Sequence[float]) -> str:
    return f"{sum(seeds) / len(seeds):.1f}" if seeds else "·"
