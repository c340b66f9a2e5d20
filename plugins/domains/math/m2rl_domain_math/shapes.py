r"""What kind of thing an answer is: a number and a list that contains it are different answers.

The verifier compares answers of the same kind only, part by part, so that no kind is read as another: ``203, 204`` is
not 204, ``[1,2]`` is not ``(1,2)``, ``\geq 204`` is not 204.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from m2rl_core.answers import compact, enclosed, pieces, unwrap
from m2rl_domain_math.matrices import matrix

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


_JOIN = re.compile(
    r",?\s*\\text\{\s*,?\s*(?:or|and)\s*\}\s*|,?(?<![A-Za-z\\])\s*\b(?:or|and)\b"
    r"|(?<=[0-9])(?:or|and)(?-i:(?![a-z]{2}))",  # "x=1orx=2" has lost its spaces, but "5oranges" is one word
    re.IGNORECASE,
)
_VALUE = re.compile(r"\s*=")
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_TURNED = {">": "<", "\\geq": "\\leq"}
_INEQUALITIES = frozenset({"<", ">", "\\leq", "\\geq", "\\neq"})
_COMMAS = frozenset({",", ";"})
_CUTS: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("list", _COMMAS),
    ("relation", _INEQUALITIES | {"\\approx", "\\sim", "\\equiv"}),
    ("equation", frozenset({"=", "\\in"})),
    ("union", frozenset({"\\cup"})),
    ("ratio", frozenset({":"})),
)


def shape(text: str) -> Shape:
    """The outermost structure of a plain answer."""
    text = unwrap(_spread(_JOIN.sub("; ", _without_thousands(unwrap(text)))))
    if text == "\\mathbb{R}":
        return Shape("tuple", ("-\\infty", "\\infty"), "()")
    if solutions := _solutions(text):
        return Shape("list", solutions)
    for kind, separators in _CUTS:
        parts, found = pieces(text, separators)
        if found:
            marks = " ".join(found) if kind == "relation" else ""
            parts = [part for part in parts if part or kind == "equation"]
            return Shape(kind, _distinct(parts) if kind == "list" else tuple(parts), marks)
    if rows := matrix(text):
        return Shape("matrix", tuple(entry for row in rows for entry in row), str([len(row) for row in rows]))
    return _bracketed(text) or Shape("scalar", (text,))


def _solutions(text: str) -> tuple[str, ...]:
    """The groups of ``p=5,q=2; p=7,q=2``, which give the same names values again; else none."""
    groups = pieces(text, frozenset({";"}))[0]
    names = {tuple(_VALUE.split(part)[0] for part in pieces(group, frozenset({","}))[0]) for group in groups}
    alike = len(groups) > 1 and len(names) == 1 and all(map(is_name, names.pop()))
    return tuple(groups) if alike and "," in groups[0] else ()


def _distinct(parts: list[str]) -> tuple[str, ...]:
    """A list of numbers has its repetitions; a point that is listed twice is one point."""
    points = all(part.startswith("(") and "," in part and enclosed(part) for part in parts)
    return tuple({compact(part): part for part in parts}.values() if points else parts)


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
        parts = tuple(part for part in pieces(inside, _COMMAS)[0] if part)
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
