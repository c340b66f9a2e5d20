"""Procedural sums and differences, small enough for a model of a million parameters, with worked solutions.

A problem's numbers decide, through a hash, whether it may be trained on or is held out, so the two never meet whatever
the phrasing. A worked solution goes digit by digit from the units, as on paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from m2rl_core.seeding import derive

__all__ = ["LEVELS", "Problem", "held_out", "problems", "solution"]

LEVELS = {
    1: "sums of two digits",
    2: "sums of three digits",
    3: "differences of two digits",
    4: "sums of four digits",
}
"""What each level of difficulty asks."""

_DIGITS = {1: 2, 2: 3, 3: 2, 4: 4}
_PHRASES = ("What is {}?", "Compute {}.", "{} = ?", "Find {}.")
_HELD_OUT = 5
"""One problem in so many is held out."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Two numbers and what to do with them."""

    level: int
    left: int
    right: int
    sign: Literal["+", "-"]
    phrase: str

    @property
    def question(self) -> str:
        return self.phrase.format(f"{self.left} {self.sign} {self.right}")

    @property
    def answer(self) -> int:
        return self.left + self.right if self.sign == "+" else self.left - self.right


def held_out(problem: Problem) -> bool:
    """Whether a problem is kept for evaluation: a hash of its numbers, in either order."""
    return derive("math", problem.sign, *sorted((problem.left, problem.right))) % _HELD_OUT == 0


def problems(level: int, draw: Random, *, evaluation: bool) -> Iterator[Problem]:
    """Endless problems of one level from one side of the split."""
    low, high = 10 ** (_DIGITS[level] - 1), 10 ** _DIGITS[level] - 1
    while True:
        left, right = draw.randint(low, high), draw.randint(low, high)
        sign: Literal["+", "-"] = "-" if level == 3 else "+"
        if sign == "-":
            left, right = max(left, right), min(left, right)
        problem = Problem(level, left, right, sign, draw.choice(_PHRASES))
        if held_out(problem) == evaluation:
            yield problem


def solution(problem: Problem, draw: Random, noise: float) -> str:
    """A worked solution; each column is miscalculated with probability ``noise``, and the mistake is carried on."""
    steps, digits, carry = [], [], 0
    upper, lower = str(problem.left)[::-1], str(problem.right)[::-1]
    for place, one in enumerate(upper):
        other = lower[place] if place < len(lower) else "0"
        total = int(one) + int(other) + carry if problem.sign == "+" else int(one) - int(other) - carry
        if draw.random() < noise:
            total += draw.choice((-1, 1))
        if problem.sign == "+":
            total = max(0, total)
            digit, following = total % 10, total // 10
        else:
            total = min(9, total)
            digit, following = total % 10, int(total < 0)
        steps.append(f"{one}{problem.sign}{other}{problem.sign}{carry}={total}")
        digits.append(digit)
        carry = following
    if problem.sign == "+" and carry:
        digits.append(carry)
    answer = int("".join(map(str, reversed(digits))))
    return f"<think>{' '.join(steps)}</think>\\boxed{{{answer}}}"
