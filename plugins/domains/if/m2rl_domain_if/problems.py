"""Procedural prompts for a few words, small enough for a model of a million parameters, with worked answers.

What they ask is checked by the same instructions as the rows of the blend: how many words, which of them, which one
first and last, capitals, commas. A worked answer counts the words before it says them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from m2rl_core.seeding import derive
from m2rl_core.types import Message, Prompt

__all__ = ["LEVELS", "Problem", "problems"]

LEVELS = {
    1: "a number of words, one of them given",
    2: "a number of words, one of them and the last one given",
    3: "the same, and capitals, no commas or the first word",
    4: "two words, the first and the last one given, and capitals or no commas",
}
"""What each level of difficulty asks."""

_NOUNS = "bird boat book door fire fish gold hand lamp leaf moon rain road salt ship tree"
NOUNS = tuple(_NOUNS.split())
_WRITE = ("Write {} words.", "Give {} words.", "Answer with {} words.")
_USE = ("Use {}.", "Include {}.")


@dataclass(frozen=True, slots=True)
class Problem:
    """How many words, and what they must be. Empty and false means that it does not matter."""

    level: int
    size: int
    uses: tuple[str, ...]
    first: str = ""
    last: str = ""
    capitals: bool = False
    no_commas: bool = False
    write: str = _WRITE[0]
    use: str = _USE[0]

    @property
    def identity(self) -> tuple[int | str, ...]:
        """What is asked, without the phrasing."""
        return (self.size, *sorted(self.uses), "first", self.first, "last", self.last, self.capitals, self.no_commas)

    def prompt(self, key: str) -> Prompt:
        asked = [self.write.format(self.size), self.use.format(" and ".join(self.uses))]
        asked += [f"Begin with {self.first}."] if self.first else []
        asked += [f"End with {self.last}."] if self.last else []
        asked += ["Capitals."] if self.capitals else []
        asked += ["No commas."] if self.no_commas else []
        ids, arguments = zip(*self._instructions(), strict=True)
        metadata = {"level": self.level, "instruction_id_list": list(ids), "kwargs": list(arguments)}
        return Prompt(key, "if", (Message(role="user", content=" ".join(asked)),), None, metadata)

    def _instructions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is checked: instruction id and arguments."""
        words = "length_constraints:number_words"
        yield words, {"relation": "at least", "num_words": self.size}
        yield words, {"relation": "less than", "num_words": self.size + 1}
        yield "keywords:existence", {"keywords": list(self.uses)}
        if self.first:
            yield "first_word:first_word_answer", {"first_word": self.first}
        if self.last:
            yield "last_word:last_word_answer", {"last_word": self.last}
        if self.capitals:
            frequency = {"capital_relation": "at least", "capital_frequency": self.size}
            yield "change_case:capital_word_frequency", frequency
        if self.no_commas:
            yield "punctuation:no_comma", {}

    def words(self) -> list[str]:
        """An answer in small letters: what is given, in its place, and other nouns around it, always the same."""
        draw = Random(derive("if", *self.identity))
        given = [*([self.first] if self.first else []), *self.uses, *([self.last] if self.last else [])]
        others = [noun for noun in NOUNS if noun not in given]
        inner = [*self.uses, *draw.sample(others, self.size - len(given))]
        draw.shuffle(inner)
        return [*given[: bool(self.first)], *inner, *given[len(given) - bool(self.last) :]]

    def worked(self) -> tuple[Message, ...]:
        """The words are counted, ``1 bird 2 moon``, and then said."""
        counted = " ".join(f"{number} {word}" for number, word in enumerate(self.words(), 1))
        answer = " ".join(self.words())
        return _said(counted, answer.upper() if self.capitals else answer)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        """Any words, and any number of them."""
        return _said("", draw.choice((" ", ", ")).join(draw.sample(NOUNS, draw.randint(2, 6))))


def _said(reasoning: str, answer: str) -> tuple[Message, ...]:
    return (Message(role="assistant", content=f"<think>{reasoning}</think>{answer}"),)


def problems(level: int, draw: Random) -> Iterator[Problem]:
    """Endless problems of one level."""
    while True:
        nouns = iter(draw.sample(NOUNS, 4))
        uses = tuple(next(nouns) for _ in range(2 if level == 4 else 1))
        extra = draw.choice(("capitals", "no_commas") if level == 4 else ("capitals", "no_commas", "first"))
        yield Problem(
            level,
            draw.randint({1: 2, 2: 2, 3: 3, 4: 4}[level], 6),
            uses,
            first=next(nouns) if level == 4 or (level == 3 and extra == "first") else "",
            last=next(nouns) if level > 1 else "",
            capitals=level > 2 and extra == "capitals",
            no_commas=level > 2 and extra == "no_commas",
            write=draw.choice(_WRITE),
            use=draw.choice(_USE),
        )
