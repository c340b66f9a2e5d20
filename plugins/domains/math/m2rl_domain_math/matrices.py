"""Matrices, and sums, products and multiples of matrices: one table of entries that are not evaluated."""

from __future__ import annotations

import re
from itertools import pairwise

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
_TIMES = re.compile(r"\s*(?:\\(?:cdot|times)(?![A-Za-z])\s*)?")
_FACTOR = re.compile(r"(.+?)" + _TIMES.pattern, re.DOTALL)


def matrix(text: str) -> Table | None:
    """The rows of the matrix that ``text`` writes, or writes as a sum of products; ``None`` where it is nothing such.

    Raises:
        UnreadableError: shapes that do not fit, or entries beyond the bounds.
    """
    if not _MATRIX.search(text):
        return None
    terms, signs = pieces(text, frozenset({"+", "-"}))
    terms, signs = (terms[1:], signs) if not terms[0] else (terms, ["+", *signs])
    total: Table | None = None
    for sign, term in zip(signs, terms, strict=True):
        product = _product(term)
        if product is None:
            return None
        total = _sum(total, sign, product)
    return total


def _product(text: str) -> Table | None:
    """The product of the factor in front, where there is one, and the matrices behind it."""
    found = list(_MATRIX.finditer(text))
    if not found or text[found[-1].end() :]:
        return None
    if not all(_TIMES.fullmatch(text[one.end() : other.start()]) for one, other in pairwise(found)):
        return None
    product, *others = map(_table, found)
    if factor := _FACTOR.fullmatch(text[: found[0].start()]):
        product = [[_bounded(f"({factor[1]})({entry})") for entry in row] for row in product]
    for other in others:
        product = _times(product, other)
    return product


def _table(found: re.Match[str]) -> Table:
    if found["open"] + found["close"] not in ("", "()", "[]"):
        raise UnreadableError("unbalanced brackets")
    rows = found["rows"].strip().removesuffix("\\\\").split("\\\\")
    return [[entry.strip() for entry in row.split("&")] for row in rows]


def _sum(left: Table | None, sign: str, right: Table) -> Table:
    if left is None:
        return right if sign == "+" else [[f"-({entry})" for entry in row] for row in right]
    if list(map(len, left)) != list(map(len, right)):
        raise UnreadableError("a sum of matrices of different shapes")
    rows = zip(left, right, strict=True)
    return [[_bounded(f"({a}){sign}({b})") for a, b in zip(*pair, strict=True)] for pair in rows]


def _times(left: Table, right: Table) -> Table:
    if {len(row) for row in left} != {len(right)} or len({len(row) for row in right}) != 1:
        raise UnreadableError("a product of matrices whose shapes do not fit")
    columns = list(zip(*right, strict=True))
    return [[_bounded("+".join(f"({a})({b})" for a, b in zip(row, by, strict=True))) for by in columns] for row in left]


def _bounded(entry: str) -> str:
    if len(entry) > LONGEST:
        raise UnreadableError(f"an entry of more than {LONGEST} characters")
    return entry
