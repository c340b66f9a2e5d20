r"""What kind of thing an answer is: a number and a list that contains it are different answers.

The verifier compares answers of the same kind only, part by part, so that no kind is read as another: ``203, 204`` is
not 204, ``[1,2]`` is not ``(1,2)``, ``\geq 204`` is not 204.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from m2rl_core.answers import enclosed, pieces, unwrap

__all__ = ["ORDERED", "UNORDERED", "Kind", "Link", "Shape", "is_name", "shape"]

Kind = Literal["scalar", "list", "set", "tuple", "interval", "union", "ratio", "matrix", "equation", "relation"]

ORDERED: frozenset[Kind] = frozenset({"tuple", "interval", "ratio", "matrix"})
UNORDERED: frozenset[Kind] = frozenset({"list", "set", "union"})


class Link(NamedTuple):
    r"""One comparison ``less sign more``; the sign is ``<``, ``\leq`` or ``\neq``."""

    less: str
    sign: str
    more: str


@dataclass(frozen=True, slots=True)
class Shape:
    """An answer taken apart once."""

    kind: Kind
    parts: tuple[str, ...]
    marks: str = ""
    """The brackets of an interval or tuple, the row lengths of a matrix, the signs of a relation."""

    @property
    def links(self) -> list[Link]:
        """The comparisons of a relation: two for ``1 < x < 2``; none where it is malformed or no inequality."""
        signs = self.marks.split()
        if len(self.parts) != len(signs) + 1 or not set(signs) <= _INEQUALITIES:
            return []
        return [
            Link(right, _TURNED[sign], left) if sign in _TURNED else Link(left, sign, right)
            for (left, right), sign in zip(pairwise(self.parts), signs, strict=True)
        ]

    @property
    def interval(self) -> Shape | None:
        """The interval that an inequality or a chain of two leaves for the name in it."""
        low, high = ("-\\infty", "("), ("\\infty", ")")
        links = self.links
        for less, sign, more in links:
            if is_name(more) and sign != "\\neq":
                low = (less, "(" if sign == "<" else "[")
            elif is_name(less) and sign != "\\neq":
                high = (more, ")" if sign == "<" else "]")
            else:
                return None
        marks = low[1] + high[1]
        return Shape("tuple" if marks == "()" else "interval", (low[0], high[0]), marks) if links else None


_JOIN = re.compile(r",?\s*\\text\{\s*,?\s*(?:or|and)\s*\}\s*|,?(?<![A-Za-z\\])\s*\b(?:or|and)\b", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_TURNED = {">": "<", "\\geq": "\\leq"}
_INEQUALITIES = frozenset({"<", ">", "\\leq", "\\geq", "\\neq"})
_CUTS: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("list", frozenset({",", ";"})),
    ("relation", _INEQUALITIES | {"\\approx", "\\sim", "\\equiv"}),
    ("equation", frozenset({"=", "\\in"})),
    ("union", frozenset({"\\cup"})),
    ("ratio", frozenset({":"})),
)
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)


def shape(text: str) -> Shape:
    """The outermost structure of a plain answer."""
    text = unwrap(_spread(_JOIN.sub(", ", _without_thousands(unwrap(text)))))
    if matrix := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix.group(2).strip().removesuffix("\\\\").split("\\\\")]
        return Shape("matrix", tuple(cell.strip() for row in rows for cell in row), str([len(row) for row in rows]))
    for kind, separators in _CUTS:
        parts, found = pieces(text, separators)
        if found:
            marks = " ".join(found) if kind == "relation" else ""
            return Shape(kind, tuple(part for part in parts if part or kind == "equation"), marks)
    return _bracketed(text) or Shape("scalar", (text,))


def _without_thousands(text: str) -> str:
    """``1,234`` outside brackets is one number; ``(1,234)`` is a pair."""

    def joined(found: re.Match[str]) -> str:
        before = text[: found.start()]
        inside = sum(map(before.count, "([{")) > sum(map(before.count, ")]}"))
        return found[0] if inside else found[0].replace(",", "")

    return _THOUSANDS.sub(joined, text)


def _spread(text: str) -> str:
    r"""``a \pm b`` written out as the two answers that it is."""
    if text.count("\\pm") != 1 or "\\mp" in text:
        return text
    return text.replace("\\pm", "+") + ", " + text.replace("\\pm", "-")


_BRACKETS = (("\\{", "\\}"), ("{", "}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]"))


def _bracketed(text: str) -> Shape | None:
    for opening, closing in _BRACKETS:
        if not text.startswith(opening) or not text.endswith(closing) or not enclosed(text):
            continue
        inside = text[len(opening) : -len(closing)]
        parts = tuple(part for part in pieces(inside, _CUTS[0][1])[0] if part)
        if "{" in opening:  # bare braces are invisible in LaTeX
            described = re.search(r"\\mid|\||:", inside)
            if described:
                return None
            return Shape("list", parts) if opening == "{" else Shape("set", tuple(dict.fromkeys(parts)))
        if opening + closing in ("(]", "[)") or (opening == "[" and len(parts) == 2):
            return Shape("interval", parts, opening + closing)
        return Shape("tuple", parts, opening + closing)
    return None


_NAME = re.compile(
    r"(?:\\(?:angle|triangle|text|mathrm|mathbf|operatorname|overline|vec|hat|bar|alpha|beta|gamma|delta|epsilon|theta|"
    r"lambda|mu|phi|varphi|omega|rho|sigma|tau)(?![A-Za-z])|\\frac\{[A-Z]+\}\{[A-Z]+\}|[A-Za-z{}_'|(),:\s]"
    r"|(?<=[_{(])[0-9,]+)+"
)


def is_name(text: str) -> bool:
    r"""Whether ``text`` names a quantity: ``x``, ``x_{1}``, ``f(2)``, ``(p,q)``, ``\angle ABC``, ``\text{Area}``."""
    return bool(_NAME.fullmatch(text)) and any(character.isalpha() for character in text)
