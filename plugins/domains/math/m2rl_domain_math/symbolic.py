r"""Equality of expressions with symbols, for text that has been found harmless first.

math-verify's LaTeX grammar (``latex2sympy2_extended``) builds sympy objects without ``eval``. Its comparison is not
used: it rounds to six places, ignores case, takes the last side of a chain of equations, and calls ``simplify`` and
``solve``, whose time has no bound. Here two expressions are equal where they agree to about :data:`DIGITS` digits at
several points: identity testing, as for polynomials, exact up to a vanishing chance. Decimals count as exact fractions,
so there is no tolerance: 3.14159 is not π.

What could make sympy run for long is refused: by its text before parsing (:mod:`m2rl_domain_math.harmless`), and by the
size of its values before evaluation. sympy is imported at the first use.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from m2rl_core.answers import UnreadableError
from m2rl_domain_math.harmless import harmless

if TYPE_CHECKING:
    from sympy import Expr

__all__ = ["factor", "same"]

LARGEST = 2_000.0
"""Decimal digits before the point of any intermediate value."""
DIGITS = 150
"""Significant digits of a comparison: more than a wrong answer can hide behind, given the bounds on its text."""
POINTS = ((137, -259, 83, 211, -171), (-113, 61, 197, -43, 241), (29, 173, -37, 109, 67), (-251, -19, -131, 157, -73))
"""Hundredths that the symbols stand for, in alphabetic order; ``i`` is the imaginary unit."""


def same(gold: str, answer: str) -> bool:
    """Whether two scalar expressions are equal wherever both are defined.

    Raises:
        UnreadableError: one of them is not in the grammar, or beyond the bounds.
    """
    left, right = _parsed(gold, answer)
    return bool(left == right) or all(_close(a, b) for a, b in _values(left, right))


def factor(gold: tuple[str, str], answer: tuple[str, str]) -> int:
    """The sign of the constant c ≠ 0 with ``answer[0] - answer[1] = c · (gold[0] - gold[1])``; 0 where there is none.

    Two equations with such a factor have the same solutions; two inequalities, where it is positive.
    """
    left, right = _parsed(f"({gold[0]})-({gold[1]})", f"({answer[0]})-({answer[1]})")
    ratios = [b / a for a, b in _values(left, right) if abs(a) > 0]
    if not ratios or not ratios[0].is_real or not all(_close(ratios[0], ratio) for ratio in ratios):
        return 0
    return 1 if ratios[0] > 0 else -1


def _parsed(gold: str, answer: str) -> tuple[Expr, Expr]:
    gold, answer = harmless(gold), harmless(answer)
    return _parse(gold), _parse(answer)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Expr:
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from sympy import Expr

    config = ConversionConfig(lowercase_symbols=False)
    try:
        parsed: Any = latex2sympy(text, normalization_config=None, conversion_config=config)
    except Exception as error:  # the grammar raises bare exceptions, and sympy whatever it likes
        raise UnreadableError(f"not in the grammar: {type(error).__name__}") from error
    if not isinstance(parsed, Expr) or _magnitude(parsed) > LARGEST or len(parsed.free_symbols) > len(POINTS[0]):
        raise UnreadableError("not a scalar of moderate size")
    return parsed


def _magnitude(node: Any) -> float:
    """An upper bound of log₁₀ |value| at :data:`POINTS`, at least 0; infinite for what is not allowed."""
    import sympy as sp
    from sympy.functions.elementary.trigonometric import InverseTrigonometricFunction, TrigonometricFunction

    if isinstance(node, sp.Rational):
        return math.log10(abs(node.p) + 1)
    if isinstance(node, sp.NumberSymbol | sp.Symbol) or node in (sp.I, sp.oo, -sp.oo):
        return 0.5
    parts = [_magnitude(part) for part in node.args]
    if max(parts, default=math.inf) > LARGEST:
        return math.inf
    match node:
        case sp.Add():
            return max(parts) + math.log10(len(parts))
        case sp.Mul() | sp.UnevaluatedExpr():
            return math.fsum(parts)
        case sp.Pow(exp=sp.Rational()):
            return float(abs(node.exp) * max(parts[0], 0.5))
        case sp.Pow() | sp.exp() | sp.sinh() | sp.cosh():
            return 10.0 ** min(parts[-1], 6.0) * max(parts[0] if len(parts) > 1 else 0.0, 0.5)
        case sp.factorial():
            return 160.0 if isinstance(node.args[0], sp.Symbol) or abs(node.args[0]) < 100 else math.inf
        case sp.Abs() | sp.log() | sp.tanh():
            return max(parts)
        case TrigonometricFunction() | InverseTrigonometricFunction():
            return 3.0
    return math.inf


def _values(left: Expr, right: Expr) -> list[tuple[Any, Any]]:
    """Both values at every point where both are finite; the comparison needs at least one, two with symbols.

    Raises:
        UnreadableError: too few.
    """
    import sympy as sp

    symbols = sorted((left.free_symbols | right.free_symbols) - {sp.Symbol("i")}, key=str)
    found = []
    for point in POINTS if symbols else POINTS[:1]:
        places = {symbol: sp.Rational(value, 100) for symbol, value in zip(symbols, point, strict=False)}
        places[sp.Symbol("i")] = sp.I
        values = [side.evalf(DIGITS, subs=places, maxn=4 * DIGITS) for side in (left, right)]
        if all(value.is_number and value.is_finite for value in values):
            found.append((values[0], values[1]))
    if len(found) < min(2, 1 + len(symbols)):
        raise UnreadableError("nowhere defined")
    return found


def _close(a: Any, b: Any) -> bool:
    scale = max(abs(a), abs(b))
    return bool(abs(a - b) <= scale * 10 ** (20 - DIGITS)) or bool(scale < 10 ** (20 - DIGITS))
