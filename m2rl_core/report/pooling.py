"""One table and one figure from those that an analyzer has made with every seed, and intervals beside their numbers.

Analyzers write an interval as columns of its own, ``low`` and ``high`` or ``KL, low`` and ``KL, high``; the report
shows it in the number's cell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from m2rl_core.report.tables import Cell, Measured, decimals
from m2rl_core.statistics.scores import Estimate, pooled
from m2rl_core.types import Figure, Table

__all__ = ["estimated", "pooled_figure", "pooled_table", "with_intervals"]

BOUNDS = ("low", "high")


def estimated(value: float, interval: tuple[float, float] | None) -> Estimate:
    """A number as an estimate whose standard error is not known."""
    return Estimate(value, *(interval or (math.nan, math.nan)), math.nan)


def with_intervals(table: Table) -> Table:
    """The same with every interval in the cell of its number."""
    groups = list(_groups(table.columns))
    rows = [[_cell(row, group) for group in groups] for row in table.rows]
    return replace(table, columns=[table.columns[group[0]] for group in groups], rows=_aligned(rows))


def pooled_table(found: Sequence[Table]) -> Table | None:
    """The mean over seeds, cell by cell; ``None`` where the seeds' tables have other columns or other rows.

    Texts that differ stand beside each other with how often they occur. Numbers get intervals over seeds and, where
    they have intervals of their own, over items (:func:`m2rl_core.statistics.scores.pooled`).
    """
    each = [with_intervals(table) for table in found]
    first, labels = each[0], [[row[0] for row in table.rows] for table in each]
    if any(table.columns != first.columns for table in each) or any(names != labels[0] for names in labels):
        return None
    rows = [
        [_pooled(cells) for cells in zip(*those, strict=True)] for those in zip(*(t.rows for t in each), strict=True)
    ]
    note = f"{first.note} Means of {len(found)} seeds with 95% intervals.".strip()
    return replace(first, rows=_aligned(rows), note=note)


def pooled_figure(found: Sequence[Figure]) -> Figure | None:
    """The mean over seeds, point by point; ``None`` where the seeds' figures show other things."""
    first = found[0]
    if any(_what(figure) != _what(first) for figure in found):
        return None
    series, beneath = _means([figure.series for figure in found]), _means([figure.beneath for figure in found])
    return replace(first, series=series, beneath=beneath, note=f"{first.note} Mean of {len(found)} seeds.".strip())


def _what(figure: Figure) -> tuple[object, ...]:
    """What a figure shows, whatever the values."""
    return figure.kind, list(figure.x), list(figure.series), list(figure.beneath)


def _means(found: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, list[float | None]]:
    return {name: [_mean(values) for values in zip(*(rows[name] for rows in found), strict=True)] for name in found[0]}


def _groups(columns: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Positions of a column, or of a number and the two bounds of its interval."""
    taken: set[int] = set()
    for i, name in enumerate(columns):
        after, stem = list(columns[i + 1 : i + 3]), name.partition(", ")[0]  # of "KL, points": "KL"
        bounds = [BOUNDS, *([f"{of}, {bound}" for bound in BOUNDS] for of in (name, stem))]
        group = (i, i + 1, i + 2) if after in map(list, bounds) else (i,)
        if i not in taken:
            taken.update(group)
            yield group


def _cell(row: Sequence[Cell], group: tuple[int, ...]) -> Cell:
    cells = [row[i] for i in group]
    value = cells[0]
    if len(cells) == 1 or not isinstance(value, (int, float)):
        return value
    low, high = cells[1:]
    around = (float(low), float(high)) if isinstance(low, (int, float)) and isinstance(high, (int, float)) else None
    return Measured(value, around)


def _pooled(cells: Sequence[Cell]) -> Cell:
    """One cell of those that the seeds have in its place."""
    numbers = [cell for cell in cells if isinstance(cell, (int, float))]
    texts = Counter(cell for cell in cells if isinstance(cell, str))
    if texts and len(texts) + bool(numbers) > 1:
        counted = [f"{text} ({n})" for text, n in texts.items()] + ([f"a number ({len(numbers)})"] if numbers else [])
        return " / ".join(counted)
    if texts or not numbers:
        return next(iter(texts), None)
    if len(set(numbers)) == 1 and not isinstance(numbers[0], Measured):
        return numbers[0]
    found = pooled([estimated(cell, cell.interval if isinstance(cell, Measured) else None) for cell in numbers])
    return Measured(found.value, (found.low, found.high))


def _aligned(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """Measured numbers with as many decimals as the plain numbers of a column have."""
    places = [
        decimals([float(cell) for cell in column if isinstance(cell, float)]) for column in zip(*rows, strict=True)
    ]
    return [
        [
            Measured(cell, cell.interval, decimals=n) if isinstance(cell, Measured) else cell
            for cell, n in zip(row, places, strict=True)
        ]
        for row in rows
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
