"""Procedural multiple-choice questions of school physics, with worked solutions, for a model of a million parameters.

A question's law and numbers decide, through a hash, whether it may be trained on or is held out, so the two never meet
whatever the phrasing or the order of the options. A worked solution computes the value, then reads the options in order
until it meets it: a model this small learned to find an option only when the reasoning wrote the options out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from m2rl_core.seeding import derive

__all__ = ["LEVELS", "Question", "held_out", "questions", "solution"]

LEVELS = {
    1: "a product of two small quantities",
    2: "a product with a quantity above ten",
    3: "a quotient",
    4: "a product of three quantities",
}
"""What each level of difficulty asks."""

LETTERS = "ABCD"
_HELD_OUT = 5
"""One question in so many is held out."""

_PRODUCTS = (
    ("force", "mass {} kg, acceleration {} m/s2"),
    ("distance", "speed {} m/s, time {} s"),
    ("voltage", "current {} A, resistance {} ohm"),
    ("momentum", "mass {} kg, speed {} m/s"),
)
_QUOTIENTS = (
    ("acceleration", "force {} N, mass {} kg"),
    ("speed", "distance {} m, time {} s"),
    ("current", "voltage {} V, resistance {} ohm"),
)
_TRIPLES = (
    ("work", "mass {} kg, acceleration {} m/s2, distance {} m"),
    ("energy", "voltage {} V, current {} A, time {} s"),
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
        first, *others = self.numbers
        for other in others:
            first = first // other if self.level == 3 else first * other
        return first

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
            options = tuple(_options(made.value, numbers, draw))
            yield Question(level, quantity, given, numbers, options, made.phrase)


def _law(level: int, draw: Random) -> tuple[tuple[str, str], tuple[int, ...]]:
    if level == 3:
        result, divisor = draw.randint(2, 12), draw.randint(2, 9)
        return draw.choice(_QUOTIENTS), (result * divisor, divisor)
    if level == 4:
        return draw.choice(_TRIPLES), (draw.randint(2, 9), draw.randint(2, 5), draw.randint(2, 5))
    low, high = (2, 9) if level == 1 else (11, 19)
    return draw.choice(_PRODUCTS), (draw.randint(low, high), draw.randint(2, 9))


def _options(value: int, numbers: tuple[int, ...], draw: Random) -> list[int]:
    """The value among three near misses, in random order."""
    near = [value + d for d in (-10, -2, -1, 1, 2, 10, *numbers, *(-n for n in numbers)) if value + d > 0]
    options = [value, *draw.sample(sorted(set(near) - {value}), len(LETTERS) - 1)]
    draw.shuffle(options)
    return options


def solution(question: Question, draw: Random, noise: float) -> str:
    """A worked solution; with probability ``noise`` it computes the value of a wrong option, and chooses that one."""
    value = draw.choice([o for o in question.options if o != question.value]) if draw.random() < noise else question.value
    sign = "/" if question.level == 3 else "*"
    at = question.options.index(value)
    read = _listed(question.options)[: at + 1]
    computed = sign.join(map(str, question.numbers))
    return "\n".join((f"<think>{computed}={value}", *read)) + f"!</think>Answer: {LETTERS[at]}"


def _listed(options: tuple[int, ...]) -> list[str]:
    """The lines of the options. A solution repeats them to the letter: copying is then one look back."""
    return [f"{letter}: {value}" for letter, value in zip(LETTERS, options, strict=True)]
