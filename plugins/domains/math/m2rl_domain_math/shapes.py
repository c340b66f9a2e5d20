r"""What kind of thing an answer is: a number and a list that contains it are different answers.

The verifier compares answers of the same kind only, part by part, so that no kind is read as another: ``203, 204`` is not
204, ``[1,2]`` is not ``(1,2)``, ``\geq 204`` is not 204.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from m2rl_core.answers import pieces, unwrap

Kind = Literal["scalar", "list", "set", "tuple", "interval", "union", "ratio", "matrix", "equation", "relation"]

ORDERED: frozenset[Kind] = frozenset({"tuple", "interval", "ratio", "matrix"})
UNORDERED: frozenset[Kind] = frozenset({"list", "set", "union"})


@dataclass(frozen=True, slots=True)
class Shape:
    """An answer taken apart once."""

    kind: Kind
    parts: tuple[str, ...]
    marks: str = ""
    """The brackets of an interval or tuple, the rows of a matrix, the signs of a relation."""


_JOIN = re.compile(r",?\s*\\text\{\s*,?\s*(?:or|and)\s*\}\s*|,?(?<![A-Za-z\\])\s*\b(?:or|and)\b", re.IGNORECASE)
_COMMAS = frozenset({",", ";"})
_EQUALS = frozenset({"="})
_RELATIONS = frozenset({"<", ">", "\\leq", "\\geq", "\\neq", "\\approx", "\\sim", "\\equiv"})
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_BRACKETS = (("\\{", "\\}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]"))


def shape(text: str) -> Shape:
    """The outermost structure of a plain answer."""
    text = unwrap(_expanded(_JOIN.sub(", ", unwrap(text))))
    if matrix := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix.group(2).strip().removesuffix("\\\\").split("\\\\")]
        return Shape("matrix", tuple(cell.strip() for row in rows for cell in row), str([len(row) for row in rows]))
    parts, _ = pieces(text, _COMMAS)
    if len(parts) > 1:
        return Shape("list", tuple(part for part in parts if part))
    parts, signs = pieces(text, _RELATIONS)
    if signs:
        return Shape("relation", tuple(parts), " ".join(signs))
    parts, signs = pieces(text, _EQUALS)
    if signs:
        return Shape("equation", tuple(parts))
    return _enclosed(text)


def _expanded(text: str) -> str:
    r"""``a \pm b`` written out as the two answers that it is."""
    if text.count("\\pm") != 1 or "\\mp" in text:
        return text
    return f"{text.replace('\\pm', '+')}, {text.replace('\\pm', '-')}"


def _enclosed(text: str) -> Shape:
    for kind, separator in (("union", "\\cup"), ("ratio", ":")):
        parts, found = pieces(text, frozenset({separator}))
        if found:
            return Shape("union" if kind == "union" else "ratio", tuple(parts))
    for opening, closing in _BRACKETS:
        inside = text.removeprefix(opening).removesuffix(closing)
        if len(text) - len(inside) == len(opening + closing) and _one_group(text):
            parts = [part for part in pieces(inside, _COMMAS)[0] if part]
            if opening == "\\{":
                return Shape("scalar" if re.search(r"\\mid|\||:", inside) else "set", tuple(parts) or ("\\emptyset",))
            if opening + closing in ("(]", "[)") or (opening == "[" and len(parts) == 2):
                return Shape("interval", tuple(parts), opening + closing)
            if len(parts) > 1:
                return Shape("tuple", tuple(parts), opening + closing)
    return Shape("scalar", (text,))


def _one_group(text: str) -> bool:
    """Whether the first bracket closes with the last one."""
    cut, _ = pieces(text[:-1], frozenset("()[]{}") | {"\\{", "\\}"})
    return len(cut) == 1


_NAME = re.compile(
    r"(?:\\(?:angle|triangle|text|mathrm|mathbf|operatorname|overline|vec|hat|bar|alpha|beta|gamma|delta|epsilon|theta|"
    r"lambda|mu|phi|varphi|omega|rho|sigma|tau)(?![A-Za-z])\s*|[A-Za-z{}_'|()\s]|(?<=[_{(])[0-9,]+)+"
)


def is_name(text: str) -> bool:
    r"""Whether ``text`` names a quantity, such as ``x``, ``x_{1}``, ``f(2)``, ``\angle ABC``, ``\text{Area}``."""
    return bool(_NAME.fullmatch(text)) and any(character.isalpha() for character in re.sub(r"\\[a-z]+", "", text + "x"))
