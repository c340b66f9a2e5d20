"""Procedural sums and differences, small enough for a model of a million parameters, with worked solutions.

A worked solution goes digit by digit from the units, as on paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from m2rl_core.types import Message, Prompt

__all__ = ["LEVELS", "Problem", "problems"]

LEVELS = {
    1: "sums of two digits",
    2: "sums of three digits",
    3: "differences of two digits",
    4: "sums of four digits",
}
"""What each level of difficulty asks."""

_DIGITS = {1: 2, 2: 3, 3: 2, 4: 4}
_PHRASES = ("What is {}?", "Compute {}.", "{} = ?", "Find {}.")


@dataclass(frozen=True, slots=True)
class Problem:
    """Two numbers and what to do with them."""

    level: int
    left: int
    right: int
    sign: Literal["+", "-"]
    phrase: str

    @property
    def identity(self) -> tuple[int | str, ...]:
        """The sign and the numbers, in either order."""
        return (self.sign, *sorted((self.left, self.right)))

    @property
    def answer(self) -> int:
        return self.left + self.right if self.sign == "+" else self.left - self.right

    def prompt(self, key: str) -> Prompt:
        asked = self.phrase.format(f"{self.left} {self.sign} {self.right}")
        message = Message(role="user", content=asked)
        return Prompt(key, "math", (message,), str(self.answer), {"level": self.level})

    def worked(self) -> tuple[Message, ...]:
        """Column by column: ``7+8+0=15 4+3+1=8``, the carry last on each left side."""
        steps, carry = [], 0
        upper = str(self.left)[::-1]
        lower = str(self.right)[::-1].ljust(len(upper), "0")
        for one, other in zip(upper, lower, strict=True):
            total = int(one) + int(other) + carry if self.sign == "+" else int(one) - int(other) - carry
            steps.append(f"{one}{self.sign}{other}{self.sign}{carry}={total}")
            carry = total // 10 if self.sign == "+" else int(total < 0)
        return _said(" ".join(steps), self.answer)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        """Any number of the answer's length."""
        digits = len(str(self.answer))
        return _said("", draw.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def _said(reasoning: str, answer: int) -> tuple[Message, ...]:
    return (Message(role="assistant", content=f"<think>{reasoning}</think>\\boxed{{{answer}}}"),)


def problems(level: int, draw: Random) -> Iterator[Problem]:
    """Endless problems of one level."""
    low, high = 10 ** (_DIGITS[level] - 1), 10 ** _DIGITS[level] - 1
    while True:
        left, right = draw.randint(low, high), draw.randint(low, high)
        sign: Literal["+", "-"] = "-" if level == 3 else "+"
        if sign == "-":
            left, right = max(left, right), min(left, right)
        yield Problem(level, left, right, sign, draw.choice(_PHRASES))
