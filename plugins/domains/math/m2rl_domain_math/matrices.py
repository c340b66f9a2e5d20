"""Matrices, and sums, products and multiples of matrices: one table of entries that are not evaluated."""

from __future__ import annotations

import re
from collections.abc import Sequence

from m2rl_core.answers import UnreadableError, pieces

__all__ = ["matrix"]

LONGEST = 400
"""Characters of an entry."""

Table = list[list[str]]

_MATRIX = re.compile(
    r"(?P<open>[(\[]?)\s*\\begin\{(?P<kind>array|smallmatrix|[pbB]?matrix)\}(?:\{[clr|\s]*\})?(?P<rows>.*?)"
    r"\\end\{(?P=kind)\}\s*(?P<close>[)\]]?)",
    re.DOTALL,
)
_TIMES = re.compile(r"\s*\\(?:cdot|times)(?![A-Za-z])\s*")
_SIGNS = frozenset({"+", "-"})


def matrix(text: str) -> Table | None:
    """The rows of the matrix that ``text`` writes, or writes as a sum of products; ``None`` where it is nothing such.

    Raises:
        UnreadableError: shapes that do not fit, or entries beyond the bounds.
    """
    if not _MATRIX.search(text):
        return None
    terms, signs = pieces(text, _SIGNS)
    if not terms[0]:
        terms, signs = [f"{signs[0]}1{terms[1]}", *terms[2:]], signs[1:]
    total: Table | None = None
    for sign, term in zip(["", *signs], terms, strict=True):
        product = _product(term)
        if product is None:
            return None
        total = product if total is None else _sum(total, sign, product)
    return total


def _product(text: str) -> Table | None:
    """The product of a scalar, where one stands in front, and the matrices behind it."""
    found = list(_MATRIX.finditer(text))
    if not found or text[found[-1].end() :]:
        return None
    between = [text[one.end() : other.start()] for one, other in zip(found, found[1:], strict=False)]
    if any(gap.strip() and not _TIMES.fullmatch(gap) for gap in between):
        return None
    tables = [_table(one) for one in found]
    scalar = _TIMES.sub("", text[: found[0].start()]).strip()
    product = [[f"({scalar})({entry})" for entry in row] for row in tables[0]] if scalar else tables[0]
    for table in tables[1:]:
        product = _times(product, table)
    return product


def _table(found: re.Match[str]) -> Table:
    if found["open"] + found["close"] not in ("", "()", "[]"):
        raise UnreadableError("unbalanced brackets")
    rows = found["rows"].strip().removesuffix("\\\\").split("\\\\")
    return [[entry.strip() for entry in row.split("&")] for row in rows]


def _sum(left: Table, sign: str, right: Table) -> Table:
    if list(map(len, left)) != list(map(len, right)):
        raise UnreadableError("a sum of matrices of different shapes")
    return [
        [_bounded(f"({a}){sign}({b})") for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)
    ]


def _times(left: Table, right: Table) -> Table:
    if {len(row) for row in left} != {len(right)} or len({len(row) for row in right}) != 1:
        raise UnreadableError("a product of matrices whose shapes do not fit")
    columns: Sequence[tuple[str, ...]] = list(zip(*right, strict=True))
    return [
        [_bounded("+".join(f"({a})({b})" for a, b in zip(row, column, strict=True))) for column in columns]
        for row in left
    ]


def _bounded(entry: str) -> str:
    if len(entry) > LONGEST:
        raise UnreadableError(f"an entry of more than {LONGEST} characters")
    return entry
