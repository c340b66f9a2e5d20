r"""Which text may reach the LaTeX grammar: a small expression and nothing else, in one spelling."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

from m2rl_core.answers import UnreadableError, rational

__all__ = ["harmless"]

LONGEST = 400
"""Characters."""
DEEPEST = 10
"""Nested brackets. The grammar's time grows with the depth."""
MOST_BARS = 4
"""``|``. The grammar's time grows steeply with their number."""
LARGEST_EXPONENT = 64
LARGEST_TOWER = 4_096
"""Product of the exponents that stand on brackets: sympy computes powers of numbers while it parses."""

_MACROS = re.compile(
    r"(?:frac|sqrt|cdot|times|div|infty|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|alpha|beta|"
    r"delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|varphi|chi|"
    r"psi|omega|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega)"
)


def _decimal(found: re.Match[str]) -> str:
    return rf"(\frac{{{int(found[1] + found[2])}}}{{1{'0' * len(found[2])}}})"


def _mixed(found: re.Match[str]) -> str:
    whole, part, parts = (int(digits) for digits in found.groups())
    return rf"(\frac{{{whole * parts + part}}}{{{parts}}})" if 0 < part < parts else found[0]


def _index(found: re.Match[str]) -> str:
    """One name for what an index computes: ``a_{n-1}`` is a variable."""
    return f"{found[1]}{{{found[2].replace('+', 'P').replace('-', 'M')}}}"


_SPELLINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(?<![\\A-Za-z])(sqrt|arcsin|arccos|arctan|sin|cos|tan|log|ln|exp|pi)(?![A-Za-z])", r"\\\1 "),
    (r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])", lambda found: found[0].replace(",", "")),
    (r"\\binom\s*\{([0-9]{1,3})\}\s*\{([0-9]{1,3})\}", lambda found: f"({math.comb(int(found[1]), int(found[2]))})"),
    (r"\^\s*(-?[0-9]+(?:\.[0-9]+)?|[A-Za-z])", r"^{\1}"),
    (r"\^\s*\(([^()]*)\)", r"^{\1}"),
    (r"_\s*([0-9A-Za-z])", r"_{\1}"),
    (r"(?<![\\A-Za-z])([A-Za-z]_)\{([A-Za-z0-9]+(?:[+-][A-Za-z0-9]+)+)\}", _index),
    (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
    (r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{"),
    (r"(\\frac\s*\{[^{}]*\})\s*([0-9])", r"\1{\2}"),
    (r"(?<![0-9.}^])([0-9]+)\s*\\frac\s*\{([0-9]+)\}\s*\{([0-9]+)\}", _mixed),
    (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"([0-9]*)\.([0-9]+)", _decimal),
    (r"\\(?:text|mathrm|mathbf|mathit)\s*\{([A-Za-z])\}", r"\1"),
    (r"\*", r"\\cdot "),
)
_SMALL = re.compile(
    r"(?<![0-9!])[0-9]{1,2}!(?!!)|(?<![A-Za-z\\])[a-z]!(?!!)"  # factorials
    r"|(?<![A-Za-z])[A-Za-z]_\{[A-Za-z0-9]{1,8}\}|\\log\s*_"  # indices
)
_MACRO = re.compile(r"\\([A-Za-z]+)")
_SIGNS = re.compile(r"[A-Za-z0-9 {}()\[\]+\-*/^|]*")
_STRANGE = re.compile(r"[A-Za-z]{4}|(?<![A-Za-z])I(?![A-Za-z])|[0-9]{41}|[0-9] +[0-9]|\^(?!\{)")
_ROOT = re.compile(r"\\sqrt\s*\{([0-9]+)\}")
_DIVIDED = re.compile(r"\s*-?\s*\\frac\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{[0-9]+\}\s*")
_POWER = re.compile(r"\^(?=\{)|\\sqrt\s*(?=\[)")


def harmless(text: str) -> str:
    """``text`` in the spelling that the grammar reads.

    Raises:
        UnreadableError: it is more than a small expression.
    """
    for pattern, replacement in _SPELLINGS:
        text = re.sub(pattern, replacement, text)
    bare = _SMALL.sub("", text)
    if len(text) > LONGEST or not all(map(_MACROS.fullmatch, _MACRO.findall(bare))):
        raise UnreadableError("not a small expression")
    bare = _MACRO.sub("()", bare)
    if not _SIGNS.fullmatch(bare) or _STRANGE.search(bare) or bare.count("|") > MOST_BARS:
        raise UnreadableError("not a small expression")
    ends = _groups(text)
    tower = 1
    for power in _POWER.finditer(text):
        size = _size(text[power.end() + 1 : ends[power.end()]])
        if text[: power.start()].rstrip().endswith((")", "}", "]")):
            tower *= max(1, math.ceil(size))
        if size > LARGEST_EXPONENT or tower > LARGEST_TOWER:
            raise UnreadableError("a large exponent")
    return text


def _size(exponent: str) -> int | Fraction:
    """A bound for the exponent's value: the product of its numbers and of its roots, without one divisor of it all."""
    if (value := rational(exponent)) is not None:
        return abs(value)
    exponent = _ROOT.sub(lambda found: str(math.isqrt(int(found[1])) + 1), exponent)
    divided = _DIVIDED.fullmatch(exponent)
    return math.prod(map(int, re.findall("[0-9]+", divided[1] if divided else exponent)))


def _groups(text: str) -> dict[int, int]:
    """Where each bracket ends.

    Raises:
        UnreadableError: they do not match, or nest too deeply.
    """
    ends: dict[int, int] = {}
    opened: list[int] = []
    for at, character in enumerate(text):
        if character in "([{":
            opened.append(at)
        elif character in ")]}":
            if not opened or text[opened[-1]] + character not in ("()", "[]", "{}"):
                raise UnreadableError("unbalanced brackets")
            ends[opened.pop()] = at
        if len(opened) > DEEPEST:
            raise UnreadableError("brackets too deep")
    if opened:
        raise UnreadableError("unbalanced brackets")
    return ends
