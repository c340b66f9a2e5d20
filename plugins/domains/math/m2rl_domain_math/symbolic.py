r"""Equality of expressions with symbols, for text that has been found harmless first.

math-verify's LaTeX grammar (``latex2sympy2_extended``) builds sympy objects without ``eval``. Its comparison is not used:
it rounds to six places, ignores case, takes the last side of a chain of equations, and calls ``simplify`` and ``solve``,
whose time has no bound. Here two expressions are equal where they agree to :data:`DIGITS` digits at several points, which
is identity testing as for polynomials: exact up to a vanishing chance, and quick. Decimals count as exact fractions, so
there is no tolerance: 3.14159 is not π.

What could make sympy run for long (towers, factorials, sums, deep nesting, long numbers), or means something else to its
grammar (words, quotes, attribute access), is refused before it gets there. sympy is imported at the first use.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import comb, prod
from typing import TYPE_CHECKING, Any

from m2rl_core.answers import UnreadableError, rational

if TYPE_CHECKING:
    from sympy import Expr

__all__ = ["proportional", "same"]

LONGEST = 400
"""Characters of an expression."""
DEEPEST = 12
"""Nested brackets."""
LARGEST_EXPONENT = 64
LARGEST_TOWER = 1_024
"""Product of all exponents of an expression."""
DIGITS = 150
"""Significant digits of the comparison; more than the exponents above can hide."""

_MACROS = frozenset(
    "frac sqrt cdot times div infty sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp alpha beta delta"
    " epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi varphi chi psi omega"
    " Delta Theta Lambda Xi Sigma Phi Psi Omega".split()
)
_BARE = re.compile(r"(?<![\\A-Za-z])(sqrt|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|theta)(?![A-Za-z])")
_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<![0-9.,])([0-9]{1,3}(?:,[0-9]{3})+)(?![0-9,])", lambda m: m[1].replace(",", "")),
        (r"\\binom\s*\{([0-9]{1,3})\}\s*\{([0-9]{1,3})\}", lambda m: f"({comb(int(m[1]), int(m[2]))})"),
        (r"\^\s*(-?[0-9]+(?:\.[0-9]+)?)", r"^{\1}"),
        (r"\\frac\s*([0-9])\s*([0-9])(?![0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9])(?![0-9])", r"\1{\2}"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"([0-9]*)\.([0-9]+)", lambda m: rf"(\frac{{{int(m[1] + m[2])}}}{{1{'0' * len(m[2])}}})"),
        (r"\*", r"\\cdot "),
    ]
]
_ALLOWED = re.compile(
    r"(?<![0-9!])[0-9]{1,2}!(?!!)|(?<![A-Za-z\\])[a-z]!(?!!)"  # small factorials
    r"|[A-Za-z]_(?:[A-Za-z0-9]|\{[A-Za-z0-9]{1,4}\})|\\log\s*_"  # indices
    r"|\\[A-Za-z]+"
)
_HARMLESS = re.compile(r"[A-Za-z0-9 {}()\[\]+\-*/^|]*")
_SUSPECT = re.compile(r"[A-Za-z]{4}|[0-9]{41}|[0-9] +[0-9]|\^[^{]*\^")


def same(gold: str, answer: str) -> bool:
    """Whether two scalar expressions are equal.

    Raises:
        UnreadableError: one of them is beyond the bounds or not in the grammar.
    """
    left, right = _parsed(gold, answer)
    values = list(zip(_values(left, left, right), _values(right, left, right), strict=True))
    compared = [(a, b) for a, b in values if a is not None and b is not None]
    return bool(compared) and all(_close(a, b) for a, b in compared)
