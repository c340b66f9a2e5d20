"""Demonstrations of judging: a question, an answer to it, right or wrong in turn, and a verdict that was worked out.

So that a model too small to follow instructions can be measured as a judge of its own answers, it is shown how, in the
very words of :mod:`m2rl_core.judging.prompts`. The judge works the question out for itself and puts its own answer
beside the one that it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import cycle
from random import Random
from typing import Protocol

from m2rl_core.errors import DataError
from m2rl_core.judging.prompts import OUTCOME, PROCESS, ask, parts, said
from m2rl_core.types import Conversation, Message, Prompt, Trajectory

__all__ = ["Asked", "judgements"]

PATIENCE = 200
"""Answers in a row that are right although a wrong one is wanted."""
_DIGIT = re.compile(r"\d")

Right = Callable[[Trajectory], bool]


class Asked(Protocol):
    """A question as :class:`m2rl_core.procedural.Question` has it."""

    def prompt(self, key: str) -> Prompt: ...

    def worked(self) -> tuple[Message, ...]: ...

    def guessed(self, draw: Random) -> tuple[Message, ...]: ...


def judgements(domain: str, draw: Random, right: Right) -> Callable[[Asked, Asked, str], Conversation]:
    """A maker of judgements, from (question, another question, id), that takes the four kinds in turn: right and
    wrong answers, with and without their reasoning.

    Args:
        right: the domain's verifier, which is asked about every answer that is meant to be wrong.

    Raises:
        DataError: answers of more than one turn, or no wrong one to be found.
    """
    kinds = cycle((template, wanted) for wanted in (True, False) for template in (OUTCOME, PROCESS))

    def make(question: Asked, other: Asked, key: str) -> Conversation:
        template, wanted = next(kinds)
        prompt = question.prompt(key)
        reasoning, answer = _shown(question, other, prompt, wanted, draw, right)
        worked, gold = parts(_turn(question.worked(), domain))
        thought = f"<think>{worked} {gold} or {answer}</think>"  # both answers side by side are easier to compare
        reply = Message(role="assistant", content=thought + said(wanted))
        return Conversation(prompt.id, domain, (ask(template, prompt.messages, reasoning, answer), reply))

    return make


def _shown(question: Asked, other: Asked, prompt: Prompt, wanted: bool, draw: Random, right: Right) -> tuple[str, str]:
    """(reasoning, answer) of an answer that is right, or wrong, as wanted. A worked one is right by its contract."""
    if wanted:
        return parts(_turn(question.worked(), prompt.domain))
    for reasoning, answer in _wrong(question, other, prompt, draw):
        message = Message(role="assistant", content=f"<think>{reasoning}</think>{answer}")
        if not right(Trajectory(prompt, (message,), answer)):
            return reasoning, answer
    raise DataError(f"no wrong answer to '{prompt.messages[-1]['content']}' of '{prompt.domain}' was found")


def _wrong(question: Asked, other: Asked, prompt: Prompt, draw: Random) -> Iterator[tuple[str, str]]:
    """Answers that may well be wrong: a guess, a slip of one digit, and what would have suited another question."""
    reasoning, answer = parts(_turn(question.worked(), prompt.domain))
    borrowed = parts(_turn(other.worked(), prompt.domain))
    for _ in range(PATIENCE):
        guess = parts(_turn(question.guessed(draw), prompt.domain))
        yield draw.choice((guess, guess, (reasoning, _slipped(answer, draw)), (reasoning, borrowed[1]), borrowed))


def _slipped(answer: str, draw: Random) -> str:
    """``answer`` with another digit in one place, if it has one."""
    places = [match.start() for match in _DIGIT.finditer(answer)]
    if not places:
        return answer
    at = draw.choice(places)
    return answer[:at] + draw.choice([d for d in "0123456789" if d != answer[at]]) + answer[at + 1 :]


def _turn(messages: tuple[Message, ...], domain: str) -> str:
    if len(messages) != 1:
        raise DataError(
            f"'{domain}' answers in several turns, and only answers of one turn are judged",
            then=f"leave out domains.{domain}.judged",
        )
    return messages[0]["content"]
