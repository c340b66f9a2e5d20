"""Procedural multiple-choice questions of school physics, with worked solutions, for a model of a million parameters.

A question's law and numbers decide, through a hash, whether it may be trained on or is held out, so the two never meet
whatever the phrasing or the order of the options. A worked solution computes the value, then reads the options in order
until it meets it: a model this small learned to find an option only when the reasoning wrote the options out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from random import Random

from m2rl_core.seeding import derive

__all__ = ["LEVELS", "Question", "held_out", "questions", "solution"]

LEVELS = {
    1: "a quotient by a number below ten",
    2: "a quotient by a number up to twenty",
    3: "a product, then a quotient",
    4: "a quotient by a number up to forty",
}
"""What each level of difficulty asks. All values have one digit, so that an option is one look back."""

LETTERS = "ABCD"
_HELD_OUT = 5
"""One question in so many is held out."""

_QUOTIENTS = (
    ("acceleration", "force {} N, mass {} kg"),
    ("mass", "force {} N, acceleration {} m/s2"),
    ("speed", "distance {} m, time {} s"),
    ("time", "distance {} m, speed {} m/s"),
    ("current", "voltage {} V, resistance {} ohm"),
    ("pressure", "force {} N, area {} m2"),
)
_RATES = (
    ("power", "force {} N, distance {} m, time {} s"),
    ("mean force", "mass {} kg, gain of speed {} m/s, time {} s"),
)
_PHRASES = ("Find the {}: {}.", "{1}. What is the {0}?", "What is the {}? {}.")


@dataclass(frozen=True, slots=True)
class Question:
    """A law of physics with numbers in it, and four values to choose from."""

    level: int
    quantity: str
    given: str
    numbers: tuple[int, ...]
    options: tuple[int, ...]
    phrase: str

    @property
    def value(self) -> int:
        *factors, divisor = self.numbers
        return prod(factors) // divisor

    @property
    def letter(self) -> str:
        return LETTERS[self.options.index(self.value)]

    @property
    def text(self) -> str:
        asked = self.phrase.format(self.quantity, self.given.format(*self.numbers))
        return "\n".join((asked, *_listed(self.options)))


def held_out(question: Question) -> bool:
    """Whether a question is kept for evaluation: a hash of its law and numbers alone."""
    return derive("science", question.quantity, *question.numbers) % _HELD_OUT == 0


def questions(level: int, draw: Random, *, evaluation: bool) -> Iterator[Question]:
    """Endless questions of one level from one side of the split."""
    while True:
        (quantity, given), numbers = _law(level, draw)
        made = Question(level, quantity, given, numbers, (), draw.choice(_PHRASES))
        if held_out(made) == evaluation:
            options = tuple(_options(made.value, draw))
            yield Question(level, quantity, given, numbers, options, made.phrase)


def _law(level: int, draw: Random) -> tuple[tuple[str, str], tuple[int, ...]]:
    value = draw.randint(1, 9)
    if level == 3:
        one, other = draw.randint(1, 3), draw.randint(2, 4)
        return draw.choice(_RATES), (value * one, other, one * other)
    low, high = {1: (2, 9), 2: (11, 19), 4: (21, 39)}[level]
    divisor = draw.randint(low, high)
    return draw.choice(_QUOTIENTS), (value * divisor, divisor)


def _options(value: int, draw: Random) -> list[int]:
    """The value among three other digits, in random order."""
    options = [value, *draw.sample([digit for digit in range(1, 10) if digit != value], len(LETTERS) - 1)]
    draw.shuffle(options)
    return options


def solution(question: Question, draw: Random, noise: float) -> str:
    """A worked solution; with probability ``noise`` it computes the value of a wrong option, and chooses that one."""
    wrong = [option for option in question.options if option != question.value]
    value = draw.choice(wrong) if draw.random() < noise else question.value
    *factors, divisor = question.numbers
    product = prod(factors)
    first = [f"{'*'.join(map(str, factors))}={product}"] if len(factors) > 1 else []
    at = question.options.index(value)
    lines = [*first, f"{product}/{divisor}={value}", *_listed(question.options)[: at + 1]]
    return f"<think>{chr(10).join(lines)}!</think>Answer: {LETTERS[at]}"


def _listed(options: tuple[int, ...]) -> list[str]:
    """The lines of the options. A solution repeats them to the letter: copying is then one look back."""
    return [f"{letter}: {value}" for letter, value in zip(LETTERS, options, strict=True)]
