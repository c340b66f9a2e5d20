r"""Equality of expressions with symbols, for text that has been found harmless first.

math-verify's LaTeX grammar (``latex2sympy2_extended``) builds sympy objects without ``eval``. Its comparison is not
used: it rounds to six places, ignores case, takes the last side of a chain of equations, and calls ``simplify``,
``solve`` and ``evalf``, whose time has no bound. Here two expressions are equal where their values agree at several
points: identity testing, as for polynomials, exact up to a vanishing chance. Decimals count as exact fractions and the
values have 400 digits, so there is no tolerance: 3.14159 is not π. The heavy modules are imported at the first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from m2rl_core.answers import UnreadableError
from m2rl_domain_math.harmless import harmless

if TYPE_CHECKING:
    from mpmath import MPContext
    from sympy import Expr

__all__ = ["factor", "number", "same"]

DIGITS = 400
"""Of every value."""
LARGEST = 400
"""Bits before the point, or zeros after it, of any intermediate value: far fewer than could hide behind DIGITS."""
ROUNDING = 60 - DIGITS
"""Power of ten below which, relative to the largest intermediate value, a difference is rounding."""
POINTS = ((137, -259, 83, 211, -171), (-113, 61, 197, -43, 241), (29, 173, -37, 109, 67), (-251, -19, -131, 157, -73))
"""Hundredths that the symbols stand for, in alphabetic order; ``i`` is the imaginary unit."""


def same(gold: str, answer: str) -> bool:
    """Whether two scalar expressions are equal wherever both are defined.

    Raises:
        UnreadableError: one of them is not in the grammar, or beyond the bounds.
    """
    left, right = harmless(gold), harmless(answer)
    return all(difference == 0 for _, _, difference in _values(_parse(left), _parse(right)))


def factor(gold: tuple[str, str], answer: tuple[str, str]) -> int:
    """The sign of the constant c ≠ 0 with ``answer[0] - answer[1] = c · (gold[0] - gold[1])``; 0 where there is none.

    Two equations with such a factor have the same solutions; two inequalities, where it is positive.

    Raises:
        UnreadableError: as for :func:`same`.
    """
    left, right = harmless(f"({gold[0]})-({gold[1]})"), harmless(f"({answer[0]})-({answer[1]})")
    values = _values(_parse(left), _parse(right))
    ratios = [b / a for a, b, _ in values if a != 0]
    if not ratios or any(a == 0 and b != 0 for a, b, _ in values) or ratios[0].imag != 0:
        return 0
    if any(abs(ratio - ratios[0]) > abs(ratios[0]) * ratios[0].context.mpf(10) ** ROUNDING for ratio in ratios):
        return 0
    return 1 if ratios[0].real > 0 else -1 if ratios[0].real < 0 else 0


def number(text: str) -> complex:
    """The value of an expression without symbols, to the precision of a float.

    Raises:
        UnreadableError: as for :func:`same`; or it has symbols.
    """
    expression = _parse(harmless(text))
    if {symbol.name for symbol in expression.free_symbols} - {"i"}:
        raise UnreadableError("not a number")
    try:
        return complex(_Point({}).value(expression))
    except (ZeroDivisionError, ValueError) as error:
        raise UnreadableError("not defined") from error


@lru_cache(maxsize=1)
def _grammar() -> Callable[[str], Any]:
    """A parser that keeps the case of letters and reads ``2(3)`` as a product, not as the mixed number 2 + 3."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy

    class Grammar(_Latex2Sympy):  # type: ignore[misc]  # the package is untyped
        def convert_postfix_list(self, factors: list[Any], i: int = 0) -> Any:
            first = self.convert_postfix(factors[i])
            return first if i == len(factors) - 1 else self.mul_flat(first, self.convert_postfix_list(factors, i + 1))

    config = ConversionConfig(lowercase_symbols=False)
    return lambda text: Grammar(config=config).parse(text)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Expr:
    from sympy import Expr

    try:
        parsed = _grammar()(text)
    except Exception as error:  # the grammar raises bare exceptions, and sympy whatever it likes
        raise UnreadableError(f"not in the grammar: {type(error).__name__}") from error
    if not isinstance(parsed, Expr):
        raise UnreadableError("not a scalar")
    return parsed


def _values(left: Expr, right: Expr) -> list[tuple[Any, Any, Any]]:
    """Both values and their difference at every point where both are defined: at least one, two if there are symbols.

    Raises:
        UnreadableError: too few, or a value beyond the bounds.
    """
    names = sorted({symbol.name for symbol in left.free_symbols | right.free_symbols} - {"i"})
    if len(names) > len(POINTS[0]):
        raise UnreadableError(f"{len(names)} variables")
    found = []
    for point in POINTS if names else POINTS[:1]:
        at = _Point(dict(zip(names, point, strict=False)))
        try:
            a, b = at.value(left), at.value(right)
        except (ZeroDivisionError, ValueError):
            continue
        found.append((a, b, at.rounded(a - b)))
    if len(found) < min(2, 1 + len(names)):
        raise UnreadableError("nowhere defined")
    return found


class _Point:
    """Evaluates expressions where its symbols have given values [hundredths]."""

    def __init__(self, hundredths: Mapping[str, int]) -> None:
        self.mp, self.functions = _functions()
        self.places = {name: self.mp.mpf(value) / 100 for name, value in hundredths.items()}
        self.peak = self.mp.mpf(1)
        self.rounding = self.mp.mpf(10) ** ROUNDING

    def value(self, node: Any) -> Any:
        """The value of ``node`` [mpmath number], computed once per node.

        Raises:
            ZeroDivisionError, ValueError: it is not defined here.
            UnreadableError: it, or a part of it, is too large or too small, or not a function of the table.
        """
        if node.is_Rational:
            found = self.mp.mpf(node.p) / node.q
        elif node.is_Symbol:
            found = self.mp.j if node.name == "i" else self.places[node.name]
        elif function := self.functions.get(type(node).__name__):
            found = function(*map(self.value, node.args))
        else:
            raise UnreadableError(f"{type(node).__name__} is not understood")
        return self.rounded(found)

    def rounded(self, value: Any) -> Any:
        """``value``, or 0 where it is nothing but rounding."""
        size = abs(value)
        if not self.mp.isfinite(size):
            raise ZeroDivisionError
        self.peak = max(self.peak, size)
        if size <= self.peak * self.rounding:
            return self.mp.mpf(0)
        if abs(self.mp.mag(size)) > LARGEST:
            raise UnreadableError("a value too large or too small")
        return value


@lru_cache(maxsize=1)
def _functions() -> tuple[MPContext, dict[str, Callable[..., Any]]]:
    """An mpmath context and, by the names of sympy's classes, what it can compute."""
    from mpmath import MPContext

    mp = MPContext()
    mp.dps = DIGITS

    def power(base: Any, exponent: Any) -> Any:
        if base == 0:
            if exponent.real <= 0:
                raise ZeroDivisionError
            return base
        return exponential(exponent * mp.log(base)) if abs(exponent) > 100 else mp.power(base, exponent)

    def exponential(exponent: Any) -> Any:
        if abs(exponent) > LARGEST:
            raise UnreadableError("a large exponent")
        return mp.exp(exponent)

    same_name = ("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "factorial")
    table: dict[str, Callable[..., Any]] = {name: getattr(mp, name) for name in same_name}
    table |= {"Add": lambda *parts: mp.fsum(parts), "Mul": lambda *parts: mp.fprod(parts), "Pow": power}
    table |= {"exp": exponential, "log": mp.log, "Abs": abs, "UnevaluatedExpr": lambda value: value}
    constants = {"Pi": mp.pi, "Exp1": mp.e, "ImaginaryUnit": mp.j}
    return mp, table | {name: lambda value=value: +value for name, value in constants.items()}
