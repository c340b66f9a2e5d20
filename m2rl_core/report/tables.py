"""One :class:`~m2rl_core.types.Table`, three forms: HTML, Markdown and CSV.

A cell is text, a number or ``None`` (missing). Cells of the report's own tables may know more: :class:`Measured` is a
number with an interval, :class:`Link` a text with a file. Other tables use plain values; both are drawn alike.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from m2rl_core.findings import unformula
from m2rl_core.statistics.scores import Estimate
from m2rl_core.types import Table

MISSING = "—"
Cell = str | float | None


class Measured(float):
    """A number with its 95% interval, whether it is the best of its kind, and the file it was computed from."""

    interval: tuple[float, float] | None
    best: bool
    signed: bool
    """Show a plus sign: a difference."""
    href: str
    decimals: int | None
    """Its own; ``None`` for those of its column."""

    def __new__(
        cls,
        value: float,
        interval: tuple[float, float] | None = None,
        *,
        best: bool = False,
        signed: bool = False,
        href: str = "",
        decimals: int | None = None,
    ) -> Measured:
        cell = super().__new__(cls, value)
        known = interval is not None and all(map(math.isfinite, interval))
        cell.interval = interval if known else None
        cell.best, cell.signed, cell.href, cell.decimals = best, signed, href, decimals
        return cell


class Link(str):
    """A text that leads to a file, by its path relative to the report."""

    __slots__ = ("href",)
    href: str

    def __new__(cls, text: str, href: str) -> Link:
        cell = super().__new__(cls, text)
        cell.href = href
        return cell


def measured(found: Estimate | None, *, best: bool = False, signed: bool = False, href: str = "") -> Measured | None:
    """An estimate as a cell."""
    if found is None:
        return None
    return Measured(found.value, (found.low, found.high), best=best, signed=signed, href=href)


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell as text, ready for a template to escape."""

    text: str
    interval: str = ""
    numeric: bool = False
    missing: bool = False
    best: bool = False
    repeated: bool = False
    """The same text as in the row above: drawn faintly."""
    href: str = ""


def shown(table: Table) -> list[list[Shown]]:
    """The rows of a table as text. Fractions in one column have the same number of decimals; an exact 0 has none."""
    places = [decimals([row[i] for row in table.rows]) for i in range(len(table.columns))]
    rows: list[list[Shown]] = []
    for row in table.rows:
        above = rows[-1] if rows else None
        cells = [_show(cell, n) for cell, n in zip(row, places, strict=True)]
        if above and not cells[0].numeric and cells[0].text == above[0].text:
            cells[0] = Shown(cells[0].text, repeated=True, missing=cells[0].missing, href=cells[0].href)
        rows.append(cells)
    return rows


def numeric_columns(table: Table) -> list[bool]:
    """True for columns that hold numbers and no text: those stand to the right."""
    columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
    return [
        any(isinstance(c, (int, float)) for c in column) and not any(isinstance(c, str) for c in column)
        for column in columns
    ]


def markdown(table: Table) -> str:
    """A pipe table; the best of its kind is bold, intervals stand in brackets."""
    align = ["---:" if numeric else "---" for numeric in numeric_columns(table)]
    lines = [[plain(c) for c in table.columns], align, *([_markdown(c) for c in row] for row in shown(table))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def to_csv(table: Table) -> str:
    """Full precision; a column with intervals is followed by ``… low`` and ``… high``; missing cells are empty."""
    wide = [any(_around(row[i]) for row in table.rows) for i in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [name for column, w in zip(table.columns, wide, strict=True) for name in _headers(unformula(column), w)]
    )
    for row in table.rows:
        writer.writerow([value for cell, w in zip(row, wide, strict=True) for value in _values(cell, w)])
    return out.getvalue()


def number(value: float, decimals: int = 1, *, signed: bool = False) -> str:
    """``1 234.5`` with a narrow no-break space, and a true minus sign."""
    if not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{decimals}f}".replace(",", "\u202f")
    positive = "+" if signed and float(f"{value:.{decimals}f}") > 0 else ""
    return ("−" if float(f"{value:.{decimals}f}") < 0 else positive) + text


def interval(low: float, high: float, decimals: int = 1, *, signed: bool = False) -> str:
    """``59.8–62.2``, or ``−1.9 to +1.1`` where signs matter."""
    between = " to " if signed or low < 0 else "–"
    return number(low, decimals, signed=signed) + between + number(high, decimals, signed=signed)


def _show(cell: Cell, places: int) -> Shown:
    href = cell.href if isinstance(cell, (Measured, Link)) else ""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return Shown(MISSING, missing=True)
    if isinstance(cell, str):
        return Shown(str(cell), href=href)
    if not isinstance(cell, Measured):
        return Shown(number(cell, places if isinstance(cell, float) and cell else 0), numeric=True)
    places = places if cell.decimals is None else cell.decimals
    around = interval(*cell.interval, places, signed=cell.signed) if cell.interval else ""
    return Shown(number(cell, places, signed=cell.signed), around, True, best=cell.best, href=href)


def decimals(column: Sequence[Cell]) -> int:
    """Few enough to be read: 1 for measured values, else by magnitude; 0 where all are whole."""
    if any(isinstance(c, Measured) for c in column):
        return 1
    numbers = [c for c in column if isinstance(c, float) and math.isfinite(c)]
    if all(n.is_integer() for n in numbers):
        return 0
    largest = max(map(abs, numbers))
    return 0 if largest >= 1000 else 1 if largest >= 10 else 2 if largest >= 1 else 3


def _markdown(cell: Shown) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text if cell.numeric or cell.missing else plain(cell.text)
    if cell.href:
        text = f"[{text}]({_url(cell.href)})"
    return f"{text} ({cell.interval})" if cell.interval else text


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, one line."""
    return re.sub(r"([\\`*\[\]<>|~&$]|\b_|_\b)", r"\\\1", " ".join(text.split()))


def _url(href: str) -> str:
    return re.sub(r"[\s()<>]", lambda m: f"%{ord(m[0]):02X}", href)


def _headers(column: str, wide: bool) -> list[str]:
    return [column, f"{column} low", f"{column} high"] if wide else [column]


def _values(cell: Cell, wide: bool) -> list[str]:
    around = _around(cell)
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        value = ""
    else:
        value = unformula(cell) if isinstance(cell, str) else repr(float(cell)).removesuffix(".0")
    return [value, *(map(repr, around) if around else ("", ""))] if wide else [value]


def _around(cell: Cell) -> tuple[float, float] | None:
    return cell.interval if isinstance(cell, Measured) else None
