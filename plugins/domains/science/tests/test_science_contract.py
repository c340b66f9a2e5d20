"""The contract of every domain, and the promises of the generated questions."""

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
from m2rl_core.types import Message, Trajectory
from m2rl_domain_science import Science
from m2rl_domain_science.questions import LEVELS, Question, questions


def law(messages: Sequence[Message]) -> tuple[object, ...]:
    """What is asked, whatever the phrasing and the options: the quantities, and the numbers in their order."""
    words = re.findall(r"[a-z/]+|[0-9]+", messages[0]["content"].split("\n")[0].lower())
    return (frozenset(words) - {"find", "what", "is", "the"}, *(word for word in words if word.isdigit()))


class TestScience(DomainContract):
    domain = Science(Science.Config())

    def question(self, messages: Sequence[Message]) -> tuple[str, ...]:
        return law(messages)


def test_options_are_distinct_and_every_letter_is_right_sometimes() -> None:
    prompts = list(islice(Science(Science.Config()).prompts("train"), 800))
    for prompt in prompts:
        assert list(prompt.metadata["options"]) == list("ABCD")
        assert len(set(prompt.metadata["options"].values())) == 4
    share = Counter(prompt.ground_truth for prompt in prompts)
    assert set(share) == set("ABCD")
    assert min(share.values()) > 150


@pytest.mark.parametrize("level", LEVELS)
def test_worked_answers_are_right_and_guesses_are_any_letter(level: int) -> None:
    draw, verifier = Random(3), Science(Science.Config())

    def judged(question: Question, said: tuple[Message, ...]) -> float:
        answer, _ = split(said[0]["content"], "required")
        return verifier.verify(Trajectory(question.prompt("p"), (), answer or "")).value or 0.0

    some = list(islice(questions(level, draw), 400))
    assert all(judged(question, question.worked()) == 1.0 for question in some)
    assert sum(judged(question, question.guessed(draw)) for question in some) / 400 == pytest.approx(0.25, abs=0.08)


def test_a_worked_answer_shows_every_equation() -> None:
    question = Question(
        3, "net force", "{} N and {} N right, {} N left", (4, 5, 2), ((1, 2), (3, 4), (5, 6), (7, 9)), "{}: {}"
    )
    [said] = question.worked()
    assert said["content"] == "<think>4+5=9 9-2=7</think>Answer: D"


def test_levels_are_mixed_evenly_and_the_hard_suite_is_another_level() -> None:
    domain = Science(Science.Config(levels=(1, 3), size=100))
    assert Counter(prompt.metadata["level"] for prompt in domain.prompts("train")) == {1: 50, 3: 50}
    assert {prompt.metadata["level"] for prompt in domain.prompts("science-hard")}.isdisjoint({1, 2, 3})
    assert len(list(domain.prompts("science-heldout"))) >= 400
    assert len(list(domain.prompts("science-hard"))) >= 200


def test_a_level_ends_where_it_has_no_more_to_ask() -> None:
    asked = [
        prompt.messages[0]["content"] for prompt in Science(Science.Config(levels=(1,))).prompts("science-heldout")
    ]
    assert 100 < len(set(asked)) == len(asked) <= 512
    assert len(list(Science(Science.Config(levels=(1,), size=5000)).prompts("train"))) == 5000


def test_refuses_unknown_levels_and_splits() -> None:
    with pytest.raises(ValidationError, match="1, 2, 3 or 4"):
        Science.Config(levels=(1, 99))
    with pytest.raises(DataError, match="science-heldout"):
        list(Science(Science.Config()).prompts("nothing"))
