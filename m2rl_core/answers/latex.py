r"""LaTeX as text: one spelling for what can be spelt in many ways, and cuts that respect brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["compact", "enclosed", "fold", "pieces", "plain", "unwrap"]

DEEPEST = 64
"""Redundant brackets that :func:`unwrap` takes off."""

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_SIGNS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "÷": r"\div ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "∅": r"\emptyset ",
        "ℝ": r"\mathbb{R}",
        "√": r"\sqrt ",
        "°": r"^\circ ",
        "≤": r"\leq ",
        "≥": r"\geq ",
        "≠": r"\neq ",
        "±": r"\pm ",
        "∪": r"\cup ",
        "²": "^2",
        "³": "^3",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
    }
)
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|bf|rm|it|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\[lr]?vert(?![A-Za-z])", "|"),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\mathbb\s+([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        (r"\\le(?:q|qslant)?(?![A-Za-z])|<=", r"\\leq "),
        (r"\\ge(?:q|qslant)?(?![A-Za-z])|>=", r"\\geq "),
        (r"\\neq?(?![A-Za-z])|(?<=\s)!=", r"\\neq "),  # "5!=120" is a factorial
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\s*\{,\s*\}|,\\!\s*", ","),
        (r"(?<=[0-9])\\,(?=[0-9]{3}(?![0-9]))", ","),
        (r"(?<!\\)\\(?:[,;:!> ]|$)|~|\\q?quad", " "),  # glued too, as in "\\quadx"
        (r"\s+", " "),
    ]
]
_FULL_STOP = re.compile(r"(?<![.,;\\])[.,;]$")

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = frozenset({"(", "[", "{", "\\{", "\\begin", "\\lfloor", "\\lceil"})
_CLOSING = frozenset({")", "]", "}", "\\}", "\\end", "\\rfloor", "\\rceil"})
_COMMAS = frozenset({",", ";"})


def fold(text: str) -> str:
    """``text`` with full-width Latin letters, digits and signs (U+FF01 to U+FF5E) made ASCII."""
    return text.translate(_WIDE)


def plain(latex: str) -> str:
    r"""One spelling: no sizes, spacing commands, fences ``$...$`` or full stop; ``\frac`` for ``\dfrac``, and so on."""
    text = latex.translate(_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _FULL_STOP.sub("", text.strip()).strip()


def compact(text: str) -> str:
    """``text`` without spaces and braces that carry no meaning; "1 2" and ``x^{2}3`` keep their own."""
    text = re.sub(r"(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9])", "", text.strip())
    return re.sub(r"([\^_])\{([A-Za-z0-9])\}(?![0-9])", r"\1\2", text)


def unwrap(text: str) -> str:
    """``text`` without brackets ``(...)`` and ``{...}`` around the whole of it, unless commas make it a tuple."""
    text = text.strip()
    for _ in range(DEEPEST):
        inside = text[1:-1].strip()
        if text[:1] + text[-1:] not in ("()", "{}") or not enclosed(text) or len(pieces(inside, _COMMAS)[0]) > 1:
            break
        text = inside
    return text


def enclosed(text: str) -> bool:
    """Whether the bracket that ``text`` begins with is closed by its last one."""
    inner = list(_tokens(text))[1:-1]
    return all(depth > (token in _CLOSING) for token, _, depth in inner)


def pieces(text: str, separators: frozenset[str]) -> tuple[list[str], list[str]]:
    """``text`` cut at the tokens in ``separators`` that no bracket encloses: the pieces, and the separators between."""
    parts: list[str] = []
    found: list[str] = []
    start = 0
    for token, at, depth in _tokens(text):
        if depth == 0 and token in separators:
            parts.append(text[start:at].strip())
            found.append(token)
            start = at + len(token)
    return [*parts, text[start:].strip()], found


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """(token, position, depth); a bracket has the depth of what it encloses, so at least 1."""
    depth = 0
    for found in _TOKEN.finditer(text):
        token = found.group()
        depth += token in _OPENING
        yield token, found.start(), depth
        depth -= token in _CLOSING
