"""Procedural multiple-choice questions of school physics, with worked solutions, for a model of a million parameters.

Options are ranges of values, in one of a few layouts: to look a value up
among options in any order is a skill that a model this small acquires late and all at once, if at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from m2rl_core.types import Message, Prompt

__all__ = ["LEVELS", "Question", "questions"]

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
    def identity(self) -> tuple[int | str, ...]:
        """The law and its numbers, without the phrasing and the options."""
        return (self.level, self.quantity, *self.numbers)

    @property
    def letter(self) -> str:
        """The right one: that of the range which the value lies in."""
        value = _steps(self)[-1][1]
        return next(letter for letter, (low, high) in zip(LETTERS, self.options, strict=True) if low <= value <= high)

    def prompt(self, key: str) -> Prompt:
        options = {letter: f"{low} to {high}" for letter, (low, high) in zip(LETTERS, self.options, strict=True)}
        asked = self.phrase.format(self.quantity, self.given.format(*self.numbers))
        text = "\n".join((asked, *(f"{letter}: {option}" for letter, option in options.items())))
        metadata = {"level": self.level, "options": options}
        return Prompt(key, "science", (Message(role="user", content=text),), self.letter, metadata)

    def worked(self) -> tuple[Message, ...]:
        """Every equation, then the letter."""
        return _said(" ".join(f"{left}={right}" for left, right in _steps(self)), self.letter)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        """Any letter."""
        return _said("", draw.choice(LETTERS))


def _said(reasoning: str, letter: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=f"<think>{reasoning}</think>Answer: {letter}"),)


def questions(level: int, draw: Random) -> Iterator[Question]:
    """Endless questions of one level."""
    while True:
        quantity, given = draw.choice(_LAWS[level])
        numbers = _numbers(level, draw)
        yield Question(level, quantity, given, numbers, draw.choice(_LAYOUTS), draw.choice(_PHRASES))


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
