r"""What kind of thing an answer is: a number and a list that contains it are different answers.

The verifier compares answers of the same kind only, part by part, so that no kind is read as another: ``203, 204`` is not
204, ``[1,2]`` is not ``(1,2)``, ``\geq 204`` is not 204.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from m2rl_core.answers import enclosed, pieces, unwrap

__all__ = ["ORDERED", "UNORDERED", "Kind", "Shape", "is_name", "shape"]

Kind = Literal["scalar", "list", "set", "tuple", "interval", "union", "ratio", "matrix", "equation", "relation"]

ORDERED: frozenset[Kind] = frozenset({"tuple", "interval", "ratio", "matrix"})
UNORDERED: frozenset[Kind] = frozenset({"list", "set", "union"})


@dataclass(frozen=True, slots=True)
class Shape:
    """An answer taken apart once."""

    kind: Kind
    parts: tuple[str, ...]
    marks: str = ""
    """The brackets of an interval or tuple, the row lengths of a matrix, the signs of a relation."""


_JOIN = re.compile(r",?\s*\\text\{\s*,?\s*(?:or|and)\s*\}\s*|,?(?<![A-Za-z\\])\s*\b(?:or|and)\b", re.IGNORECASE)
_COMMAS = frozenset({",", ";"})
_RELATIONS = frozenset({"<", ">", "\\leq", "\\geq", "\\neq", "\\approx", "\\sim", "\\equiv", "\\in"})
_CUTS: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("list", _COMMAS),
    ("relation", _RELATIONS),
    ("equation", frozenset({"="})),
    ("union", frozenset({"\\cup"})),
    ("ratio", frozenset({":"})),
)
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)


def shape(text: str) -> Shape:
    """The outermost structure of a plain answer."""
    text = unwrap(_spread(_JOIN.sub(", ", unwrap(text))))
    if matrix := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix.group(2).strip().removesuffix("\\\\").split("\\\\")]
        return Shape("matrix", tuple(cell.strip() for row in rows for cell in row), str([len(row) for row in rows]))
    for kind, separators in _CUTS:
        parts, found = pieces(text, separators)
        if found:
            return Shape(kind, tuple(part for part in parts if part), " ".join(found) if kind == "relation" else "")
    return _bracketed(text) or Shape("scalar", (text,))


def _spread(text: str) -> str:
    r"""``a \pm b`` written out as the two answers that it is."""
    if text.count("\\pm") != 1 or "\\mp" in text:
        return text
    return text.replace("\\pm", "+") + ", " + text.replace("\\pm", "-")


_BRACKETS: tuple[tuple[str, str], ...] = (
    ("\\{", "\\}"), ("{", "}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]"),
)  # fmt: skip


def _bracketed(text: str) -> Shape | None:
    for opening, closing in _BRACKETS:
        if not text.startswith(opening) or not text.endswith(closing) or not enclosed(text):
            continue
        inside = text[len(opening) : -len(closing)]
        parts = tuple(part for part in pieces(inside, _COMMAS)[0] if part)
        if "{" in opening:
            return None if re.search(r"\\mid|\||:", inside) else Shape("set", parts)
        if opening + closing in ("(]", "[)") or (opening == "[" and len(parts) == 2):
            return Shape("interval", parts, opening + closing)
        return Shape("tuple", parts, opening + closing)
    return None


_NAME = re.compile(
    r"(?:\\(?:angle|triangle|text|mathrm|mathbf|operatorname|overline|vec|hat|bar|alpha|beta|gamma|delta|epsilon|theta|"
    r"lambda|mu|phi|varphi|omega|rho|sigma|tau)(?![A-Za-z])|[A-Za-z{}_'|()\s]|(?<=[_{(])[0-9,]+)+"
)


def is_name(text: str) -> bool:
    r"""Whether ``text`` names a quantity: ``x``, ``x_{1}``, ``f(2)``, ``\angle ABC``, ``\text{Area}``."""
    return bool(_NAME.fullmatch(text)) and any(character.isalpha() for character in text)
