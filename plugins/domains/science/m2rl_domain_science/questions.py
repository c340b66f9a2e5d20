"""Procedural multiple-choice questions of school physics, with worked solutions, for a model of a million parameters.

A question's law and numbers decide, through a hash, whether it may be trained on or is held out, so the two never
meet whatever the phrasing or the options. Options are ranges of values, in one of a few layouts: to look a value up
among options in any order is a skill that a model this small acquires late and all at once, if at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from m2rl_core.seeding import derive

__all__ = ["LEVELS", "Question", "held_out", "questions", "solution"]

LEVELS = {1: "a sum", 2: "a difference", 3: "a sum, then a difference", 4: "a quotient"}
"""What each level of difficulty asks."""

LETTERS = "ABCD"
_LAYOUTS = (
    ((1, 2), (3, 4), (5, 6), (7, 9)),
    ((7, 9), (5, 6), (3, 4), (1, 2)),
    ((1, 3), (4, 5), (6, 7), (8, 9)),
    ((8, 9), (6, 7), (4, 5), (1, 3)),
)
"""Ranges of values that the options stand for: rising or falling."""
_HELD_OUT = 5
"""One question in so many is held out."""

_LAWS = {
    1: (
        ("resistance in series", "{} ohm and {} ohm"),
        ("total mass", "{} kg and {} kg"),
        ("total charge", "{} C and {} C"),
        ("distance walked", "{} m, then {} m"),
    ),
    2: (
        ("net force", "{} N right, {} N left"),
        ("rise in temperature", "now {} K, before {} K"),
        ("relative speed", "{} m/s behind {} m/s"),
        ("mass left", "{} kg less {} kg"),
    ),
    3: (
        ("net force", "{} N and {} N right, {} N left"),
        ("height gained", "up {} m, up {} m, down {} m"),
        ("mass left", "{} kg and {} kg less {} kg"),
    ),
    4: (
        ("acceleration", "force {} N, mass {} kg"),
        ("speed", "distance {} m, time {} s"),
        ("current", "voltage {} V, resistance {} ohm"),
        ("pressure", "force {} N, area {} m2"),
    ),
}
_PHRASES = ("Find the {}: {}.", "What is the {}? {}.")


@dataclass(frozen=True, slots=True)
class Question:
    """A law of physics with numbers in it, and four ranges to choose from."""

    level: int
    quantity: str
    given: str
    numbers: tuple[int, ...]
    options: tuple[tuple[int, int], ...]
    phrase: str

    @property
    def letter(self) -> str:
        return self.choose(_steps(self)[-1][1])

    @property
    def texts(self) -> dict[str, str]:
        """The options by letter."""
        return {letter: f"{low} to {high}" for letter, (low, high) in zip(LETTERS, self.options, strict=True)}

    @property
    def text(self) -> str:
        asked = self.phrase.format(self.quantity, self.given.format(*self.numbers))
        return "\n".join((asked, *(f"{letter}: {text}" for letter, text in self.texts.items())))

    def choose(self, value: int) -> str:
        """The letter of the range that ``value`` lies in."""
        return next(letter for letter, (low, high) in zip(LETTERS, self.options, strict=True) if low <= value <= high)


def held_out(question: Question) -> bool:
    """Whether a question is kept for evaluation: a hash of its law and numbers alone."""
    return derive("science", question.level, question.quantity, *question.numbers) % _HELD_OUT == 0


def questions(level: int, draw: Random, *, evaluation: bool) -> Iterator[Question]:
    """Endless questions of one level from one side of the split."""
    while True:
        quantity, given = draw.choice(_LAWS[level])
        numbers = _numbers(level, draw)
        question = Question(level, quantity, given, numbers, draw.choice(_LAYOUTS), draw.choice(_PHRASES))
        if held_out(question) == evaluation:
            yield question


def _numbers(level: int, draw: Random) -> tuple[int, ...]:
    """Numbers that the level's law turns into a value of one digit."""
    value = draw.randint(2 if level == 1 else 1, 9)
    if level == 1:
        part = draw.randint(1, value - 1)
        return part, value - part
    if level == 2:
        less = draw.randint(1, 9)
        return value + less, less
    if level == 3:
        less = draw.randint(1, 9)
        part = draw.randint(1, value + less - 1)
        return part, value + less - part, less
    divisor = draw.randint(2, 9)
    return value * divisor, divisor


def _steps(question: Question) -> list[tuple[str, int]]:
    """The calculation, as (left side, right side) of every equation."""
    first, *others = question.numbers
    if question.level == 4:
        return [(f"{first}/{others[0]}", first // others[0])]
    found = []
    for sign, number in zip({1: "+", 2: "-", 3: "+-"}[question.level], others, strict=True):
        total = first + number if sign == "+" else first - number
        found.append((f"{first}{sign}{number}", total))
        first = total
    return found


def solution(question: Question, draw: Random, noise: float) -> str:
    """A worked solution; with probability ``noise`` its last result is off by up to three, and decides all the same."""
    *steps, (last, value) = _steps(question)
    if draw.random() < noise:
        value = min(9, max(1, value + draw.choice((-3, -2, -1, 1, 2, 3))))
    worked = " ".join(f"{left}={right}" for left, right in [*steps, (last, value)])
    return f"<think>{worked}</think>Answer: {question.choose(value)}"
