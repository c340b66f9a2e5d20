"""Procedural functions to be written, small enough for a model of a million parameters, with worked solutions.

The program is one line; what has to be found are its numbers, and the worked solution finds them one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from m2rl_core.types import Message, Prompt

__all__ = ["LEVELS", "Function", "functions"]

LEVELS = {
    1: "a linear function, described in four steps",
    2: "a linear function, read off two of its values",
    3: "two cases, whose numbers are a sum and a product",
    4: "a linear function, read off two of its values, applied to its own value",
}
"""What each level of difficulty asks."""

_PHRASES = {
    1: (
        "Write f(x): x times {}, plus {}, all times {}, minus {}.",
        "Multiply x by {}, add {}, multiply by {}, subtract {}. Write f(x).",
    ),
    2: ("f is linear, f({})={}, f({})={}. Write f(x).", "Write the linear f(x) with f({})={} and f({})={}."),
    3: (
        "Write f(x): x times {} if x is below {} plus {}, else x minus {} times {}.",
        "Return {} times x while x is less than {} plus {}, else x minus {} times {}. Write f(x).",
    ),
    4: (
        "g is linear, g({})={}, g({})={}. Write f(x) = g(g(x)).",
        "Write f(x) = g(g(x)) for the linear g with g({})={} and g({})={}.",
    ),
}
_LINE = (7, -4, 0, 1, 30)
"""Arguments that a linear function is called with; two of them would tell any two apart."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function in one variable, named by the numbers of its description."""

    level: int
    numbers: tuple[int, ...]
    phrase: str

    @property
    def identity(self) -> tuple[int | str, ...]:
        """The level and the numbers."""
        return (self.level, *self.numbers)

    @property
    def solution(self) -> str:
        """The program."""
        return _program(self.level, _coefficients(self))

    def prompt(self, key: str) -> Prompt:
        message = Message(role="user", content=self.phrase.format(*self.numbers))
        metadata = {"level": self.level, "unit_tests": self._tests(), "solution": self.solution}
        return Prompt(key, "coding", (message,), None, metadata)

    def _tests(self) -> dict[str, Any]:
        """Calls, and what they return; with two cases, on both sides of where they meet."""
        found = _coefficients(self)
        meeting = (found[1] - 1, found[1], -5, 0, 40, found[1] + 1) if self.level == 3 else _LINE
        values = [_value(self.level, found, x) for x in meeting]
        return {"inputs": list(map(str, meeting)), "outputs": list(map(str, values)), "fn_name": "f"}

    def worked(self) -> tuple[Message, ...]:
        """Every number by an equation of its own, then the program."""
        return _said(" ".join(f"{left}={right}" for left, right in _steps(self)), self.solution)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        """A program of the right form with any numbers."""
        return _said("", _program(self.level, tuple(draw.randint(2, 60) for _ in _coefficients(self))))


def _said(reasoning: str, solution: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=f"<think>{reasoning}</think>```python\n{solution}\n```"),)


def _program(level: int, found: tuple[int, ...]) -> str:
    if level == 3:
        factor, limit, less = found
        return f"def f(x): return {factor}*x if x<{limit} else x-{less}"
    slope, constant = found
    return f"def f(x): return {slope}*x{constant:+}"


def _value(level: int, found: tuple[int, ...], x: int) -> int:
    if level == 3:
        factor, limit, less = found
        return factor * x if x < limit else x - less
    slope, constant = found
    return slope * x + constant


def _coefficients(function: Function) -> tuple[int, ...]:
    """The numbers of the program."""
    steps = [right for _, right in _steps(function)]
    if function.level == 1:
        return steps[0], steps[2]
    if function.level == 2:
        return steps[0], steps[2]
    if function.level == 3:
        return function.numbers[0], steps[0], steps[1]
    return steps[3], steps[5]


def _steps(function: Function) -> list[tuple[str, int]]:
    """The calculation, as (left side, right side) of every equation."""
    if function.level == 1:
        factor, plus, times, minus = function.numbers
        scaled = plus * times
        return [(f"{factor}*{times}", factor * times), (f"{plus}*{times}", scaled), _difference(scaled, minus)]
    if function.level == 3:
        _, first, second, left, right = function.numbers
        return [(f"{first}+{second}", first + second), (f"{left}*{right}", left * right)]
    line = _line(*function.numbers)
    if function.level == 2:
        return line
    slope, constant = line[0][1], line[2][1]
    mixed = slope * constant
    squared = (f"{slope}*{slope}", slope * slope)
    return [*line, squared, (f"{slope}*{constant}", mixed), (f"{mixed}+{constant}", mixed + constant)]


def _line(first: int, value: int, _: int, following: int) -> list[tuple[str, int]]:
    """The slope, then the value at zero, of the line through two neighbouring points."""
    slope = following - value
    rise = slope * first
    return [(f"{following}-{value}", slope), (f"{slope}*{first}", rise), _difference(value, rise)]


def _difference(left: int, right: int) -> tuple[str, int]:
    return f"{left}-{right}", left - right


def functions(level: int, draw: Random) -> Iterator[Function]:
    """Endless functions of one level."""
    while True:
        yield Function(level, _numbers(level, draw), draw.choice(_PHRASES[level]))


def _numbers(level: int, draw: Random) -> tuple[int, ...]:
    if level == 1:
        factor, plus, times = (draw.randint(2, 6) for _ in range(3))
        return factor, plus, times, draw.randint(1, 9)
    if level == 3:
        return tuple(draw.randint(2, 9) for _ in range(5))
    slope, constant, first = draw.randint(2, 9), draw.randint(1, 15), draw.randint(1, 2 if level == 2 else 5)
    return first, slope * first + constant, first + 1, slope * (first + 1) + constant
