"""The contract of every domain, and the promises of the generated prompts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from random import Random

import pytest
from pydantic import ValidationError

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.testing import DomainContract
from m2rl_core.types import Message, Prompt, Trajectory
from m2rl_domain_if import If
from m2rl_domain_if.problems import LEVELS, NOUNS, Problem, problems


class TestIf(DomainContract):
    domain = If(If.Config())
    has_gold = False
    secret = False

    def question(self, messages: Sequence[Message]) -> tuple[str, ...]:
        """What is asked, whatever the phrasing and the order of the words to use."""
        said = messages[0]["content"]
        found = re.findall(r"[0-9]+|Begin with \w+|End with \w+|Capitals|No commas|\b[a-z]+\b", said)
        return tuple(sorted({each for each in found if each in NOUNS or not each.islower()}))

    def gold(self, prompt: Prompt) -> str:
        """What is asked for, and nothing that another prompt may ask for."""
        asked = {key: value for given in prompt.metadata["kwargs"] for key, value in given.items()}
        first, last = asked.get("first_word"), asked.get("last_word")
        inner = asked["keywords"] * 6
        size = asked["num_words"] - 1 - bool(first) - bool(last)
        words = [*([first] if first else []), *inner[:size], *([last] if last else [])]
        return " ".join(word.upper() if "capital_frequency" in asked else word for word in words)


@pytest.mark.parametrize("level", LEVELS)
def test_worked_answers_are_right_and_guesses_seldom(level: int) -> None:
    draw, verifier = Random(3), If(If.Config())

    def judged(problem: Problem, said: tuple[Message, ...]) -> float:
        answer, _ = split(said[0]["content"], "required")
        return verifier.verify(Trajectory(problem.prompt("p"), (), answer or "")).value or 0.0

    some = list(islice(problems(level, draw), 300))
    assert all(judged(problem, problem.worked()) == 1.0 for problem in some)
    assert sum(judged(problem, problem.guessed(draw)) for problem in some) < 0.1 * len(some)


def test_a_worked_answer_counts_the_words() -> None:
    [said] = Problem(3, 3, ("fish",), first="lamp", last="road", capitals=True).worked()
    assert said["content"] == "<think>1 lamp 2 fish 3 road</think>LAMP FISH ROAD"


def test_what_is_asked_is_what_is_checked() -> None:
    problem = Problem(4, 4, ("fish", "moon"), first="lamp", last="road", capitals=True, no_commas=True)
    prompt = problem.prompt("p")
    asked = "Write 4 words. Use fish and moon. Begin with lamp. End with road. Capitals. No commas."
    assert prompt.messages[0]["content"] == asked
    verifier = If(If.Config())
    for text, missed in {
        "LAMP FISH MOON ROAD": "all followed",
        "LAMP FISH MOON": "length_constraints:number_words",
        "LAMP FISH MOON SALT ROAD": "length_constraints:number_words",
        "LAMP FISH SALT ROAD": "keywords:existence",
        "FISH MOON LAMP ROAD": "first_word:first_word_answer",
        "LAMP ROAD FISH MOON": "last_word:last_word_answer",
        "lamp fish moon road": "change_case:capital_word_frequency",
        "LAMP FISH, MOON ROAD": "punctuation:no_comma",
    }.items():
        reason = verifier.verify(Trajectory(prompt, (), text)).reason
        assert reason.endswith(missed), (text, reason)


def test_levels_are_mixed_evenly_and_the_hard_suite_is_another_level() -> None:
    domain = If(If.Config(levels=(1, 3), size=100))
    assert Counter(prompt.metadata["level"] for prompt in domain.prompts("train")) == {1: 50, 3: 50}
    assert {prompt.metadata["level"] for prompt in domain.prompts("if-hard")}.isdisjoint({1, 2, 3})
    assert len(list(domain.prompts("if-heldout"))) >= 400
    assert len(list(domain.prompts("if-hard"))) >= 200


def test_refuses_unknown_levels_modes_and_splits() -> None:
    with pytest.raises(ValidationError, match="1, 2, 3 or 4"):
        If.Config(levels=(1, 99))
    with pytest.raises(ValidationError, match="strict"):
        If.Config(mode="lax")
    with pytest.raises(DataError, match="if-heldout"):
        list(If(If.Config()).prompts("nothing"))
