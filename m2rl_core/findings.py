"""An analyzer's findings as files: ``findings.json``, which reads back equal, and a CSV per table.

What an analyzer returns is made plain first: sequences become tuples, numbers of libraries Python's own, and numbers
that JSON does not know (NaN, ±∞) ``None``. This module imports no torch.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.files import atomic_folder, write_text
from m2rl_core.types import Claim, Figure, Findings, Table

__all__ = ["FILE", "plain", "read_findings", "to_csv", "unformula", "write_findings"]

FILE = "findings.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def plain(found: Findings) -> Findings:
    """The same findings in the one form that :func:`read_findings` returns.

    Raises:
        ValueError: a table or a figure whose parts do not fit each other, or a cell that is neither text nor number.
    """
    tables = {str(name): _table(str(name), table) for name, table in found.tables.items()}
    figures = {str(name): _figure(str(name), figure) for name, figure in found.figures.items()}
    return Findings(tables, figures, tuple(map(_claim, found.claims)))


def write_findings(found: Findings, folder: Path) -> None:
    """Write ``tables/*.csv`` and, last, ``findings.json`` into ``folder``; of findings that are plain.

    Raises:
        RunError: the disk is full.
    """
    with atomic_folder(folder / "tables") as new:
        for name, table in found.tables.items():
            (new / f"{name}.csv").write_text(to_csv(table), encoding="utf-8")
    write_text(folder / FILE, json.dumps(asdict(found), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_findings(folder: Path) -> Findings:
    """What :func:`write_findings` wrote into ``folder``.

    Raises:
        DataError: the file holds no findings.
    """
    path = folder / FILE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tables = {name: Table(**table) for name, table in found["tables"].items()}
        figures = {name: Figure(**figure) for name, figure in found["figures"].items()}
        return plain(Findings(tables, figures, [Claim(**claim) for claim in found["claims"]]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no findings: {error}", then="remove DONE beside it and run the study") from error


def to_csv(table: Table) -> str:
    """Full precision; missing cells are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(unformula, table.columns))
    for row in table.rows:
        writer.writerow(unformula(cell) if isinstance(cell, str) else cell for cell in row)
    return out.getvalue()


def unformula(text: str) -> str:
    """Text that a spreadsheet will not run as a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _table(name: str, table: Table) -> Table:
    where = _named("table", name)
    columns = tuple(map(str, table.columns))
    rows = tuple(tuple(_cell(cell, where) for cell in row) for row in table.rows)
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"{where}: row {number} has {len(row)} cells for {len(columns)} columns")
    return replace(table, columns=columns, rows=rows)


def _figure(name: str, figure: Figure) -> Figure:
    where = _named("figure", name)
    x = tuple(value if isinstance(value, str) else _known(value, where) for value in figure.x)
    series, beneath = _rows(figure.series, len(x), where), _rows(figure.beneath, len(x), where)
    if beneath and (figure.kind != "heatmap" or list(beneath) != list(series)):
        raise ValueError(f"{where}: values beneath {list(beneath)} are for the cells of a heat map with these rows")
    return replace(figure, x=x, series=series, beneath=beneath)


def _rows(named: Mapping[str, Sequence[float | None]], places: int, where: str) -> dict[str, tuple[float | None, ...]]:
    rows = {str(label): tuple(_number(v, where) for v in values) for label, values in named.items()}
    for label, values in rows.items():
        if len(values) != places:
            raise ValueError(f"{where}: '{label}' has {len(values)} values for {places} places along x")
    return rows


def _claim(claim: Claim) -> Claim:
    where = f"claim '{claim.statement}'"
    low, high = (_number(edge, where) for edge in claim.interval or (None, None))
    interval = None if low is None or high is None else (low, high)
    expected = claim.expected and (claim.expected[0], _known(claim.expected[1], where))
    return replace(claim, statistic=_number(claim.statistic, where), interval=interval, expected=expected)


def _named(kind: str, name: str) -> str:
    """``table 'NAME'``, of a name that can be a file's."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind} '{name}' cannot name a file: letters, digits, '.', '_' and '-' can")
    return f"{kind} '{name}'"


def _cell(value: object, where: str) -> str | float | None:
    return value if isinstance(value, str) else _number(value, where)


def _known(value: object, where: str) -> float:
    number = _number(value, where)
    if number is None:
        raise ValueError(f"{where}: a place along x is no number: {value!r}")
    return number


def _number(value: object, where: str) -> float | None:
    """A Python number; ``None`` for one that is missing or not finite."""
    if value is None:
        return None
    if hasattr(value, "item"):  # a number of NumPy or torch
        value = value.item()
    if not isinstance(value, int | float):
        raise ValueError(f"{where}: {value!r} is neither text nor a number")
    return value if math.isfinite(value) else None
