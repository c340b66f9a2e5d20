r"""Exact arithmetic on text, without ``eval`` and within bounds."""

from __future__ import annotations

import re
from fractions import Fraction
from math import factorial

__all__ = ["rational"]

LONGEST = 1_000
"""Characters of an expression."""
DEEPEST = 64
"""Brackets and exponents within one another."""
LARGEST = 16_384
"""Bits of a value's numerator and denominator together."""

_ARITHMETIC = re.compile(r"(?:[0-9+\-*/^(){}.,!%\s]|\\(?:frac|cdot|times|div|overline|bar)(?![A-Za-z])|\\%)+")
_NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_REPEATING = re.compile(r"\.?\\(?:overline|bar)\s*\{([0-9]+)\}")
_SLASH = re.compile(r"\s+([0-9]+)/([0-9]+)(?![0-9.,])")
_TIMES = re.compile(r"\\(?:cdot|times|div)(?![A-Za-z])|[*/]")


def rational(text: str) -> Fraction | None:
    r"""The exact value of an arithmetic expression in plain text or LaTeX; ``None`` where it is none, or too large.

    Understood: integers, decimals, repeating decimals ``0.\overline{3}`` and ``0.\bar{3}``, thousands separators
    outside brackets, fractions ``3/4`` and ``\frac{3}{4}``, mixed numbers ``1\frac{1}{2}`` and ``1 1/2``, sums,
    products, ``2(3+4)``, quotients, integer powers, factorials, brackets, and ``%``, which means one hundredth and
    nothing else. Digits are ASCII digits: a full-width ``２`` is none.
    """
    if len(text) > LONGEST or not _ARITHMETIC.fullmatch(text):
        return None
    try:
        return _Arithmetic(text).value()
    except (_RefusedError, ZeroDivisionError):
        return None


class _RefusedError(Exception):
    """The text is no arithmetic expression, or one beyond the bounds."""


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > LARGEST:
        raise _RefusedError
    return value


class _Arithmetic:
    """Recursive descent over one expression: sum → product → signed → power → postfix → atom."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def value(self) -> Fraction:
        value = self._sum()
        if self._peek():
            raise _RefusedError
        return value

    def _peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def _deeper(self, by: int) -> None:
        self.depth += by
        if self.depth > DEEPEST:
            raise _RefusedError

    def _sum(self) -> Fraction:
        value = self._product()
        while (sign := self._peek()) in ("+", "-"):
            self.at += 1
            term = self._product()
            value = _bounded(value + term if sign == "+" else value - term)
        return value

    def _product(self) -> Fraction:
        value, divided = self._signed(), False
        while True:
            bracket = self._peek() == "("
            if sign := self._take(_TIMES):
                factor = self._signed()
                divides = sign.group() in ("/", "\\div")
                divided |= divides
                value = _bounded(value / factor if divides else value * factor)
            elif bracket and not divided:  # 2(3+4) is a product; 1/2(3) could be two things
                value = _bounded(value * self._power())
            else:
                return value

    def _signed(self) -> Fraction:
        sign = self._peek()
        if sign not in ("+", "-"):
            return self._power()
        self.at += 1
        return -self._power() if sign == "-" else self._power()

    def _power(self) -> Fraction:
        base = self._postfix()
        if self._peek() != "^":
            return base
        self.at += 1
        self._deeper(+1)
        exponent = self._signed()
        self._deeper(-1)
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) * size > LARGEST or (base == 0 and exponent <= 0):
            raise _RefusedError
        return base ** int(exponent)

    def _postfix(self) -> Fraction:
        value = self._atom()
        while True:
            if self._peek() == "!":
                self.at += 1
                if value.denominator != 1 or not 0 <= value <= 1000:
                    raise _RefusedError
                value = Fraction(factorial(int(value)))
            elif self.text.startswith(("%", "\\%"), self.at):
                self.at += len("%") if self._peek() == "%" else len("\\%")
                value /= 100
            else:
                return value

    def _atom(self) -> Fraction:
        if self._peek() in ("(", "{"):
            return self._bracket()
        if self.text.startswith("\\frac", self.at):
            return self._fraction()
        number = self._take(_NUMBER)
        if not number or ("," in number.group() and self.depth):
            raise _RefusedError
        value = Fraction(number.group().replace(",", ""))
        if repeating := self._take(_REPEATING):
            return self._repeating(value, number.group() + repeating.group().partition("\\")[0], repeating.group(1))
        return value + self._proper() if number.group().isdigit() else value

    def _repeating(self, value: Fraction, digits: str, period: str) -> Fraction:
        if digits.count(".") != 1:
            raise _RefusedError
        places = len(digits.partition(".")[2])
        return _bounded(value + Fraction(int(period), 10**places * (10 ** len(period) - 1)))

    def _proper(self) -> Fraction:
        """The proper fraction after a whole number, as in ``1 1/2``; 0 where none follows."""
        if slash := self._take(_SLASH):
            part = Fraction(int(slash.group(1)), int(slash.group(2)))
        elif self._peek() == "\\" and self.text.startswith("\\frac", self.at):
            part = self._fraction()
        else:
            return Fraction(0)
        if not 0 < part < 1:
            raise _RefusedError
        return part

    def _fraction(self) -> Fraction:
        self.at += len("\\frac")
        numerator = self._argument()
        return numerator / self._argument()

    def _argument(self) -> Fraction:
        r"""One argument of ``\frac``: a group or, as in TeX, a single digit."""
        character = self._peek()
        if character == "{":
            return self._bracket()
        if not character.isdigit():
            raise _RefusedError
        self.at += 1
        return Fraction(int(character))

    def _bracket(self) -> Fraction:
        closing = {"(": ")", "{": "}"}[self._peek()]
        self.at += 1
        self._deeper(+1)
        value = self._sum()
        self._deeper(-1)
        if self._peek() != closing:
            raise _RefusedError
        self.at += 1
        return value
