"""The contract of every domain, and the promises of the generated functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from random import Random

import pytest
from pydantic import ValidationError

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.testing import DomainContract
from m2rl_core.types import Message, Prompt, Trajectory
from m2rl_domain_coding import Coding
from m2rl_domain_coding.functions import LEVELS, Function, functions


def asked(messages: Sequence[Message]) -> tuple[object, ...]:
    """What is asked, whatever the phrasing: the kind of function, and the numbers in their order."""
    text = messages[0]["content"]
    kind = "g(g(x))" if "g(g(x))" in text else "linear" if "linear" in text else "cases" if "else" in text else "steps"
    return (kind, *re.findall(r"\d+", text))


class TestCoding(DomainContract):
    domain = Coding(Coding.Config())
    has_gold = False  # the tests are the gold, and lie in the metadata: see test_coding_verifier.py

    def question(self, messages: Sequence[Message]) -> tuple[object, ...]:
        return asked(messages)

    def _some(self, count: int = 50) -> Iterator[Prompt]:
        return super()._some(min(count, 20))  # every right answer takes five sandboxes


def judged(domain: Coding, function: Function, said: tuple[Message, ...]) -> float:
    answer, _ = split(said[0]["content"], "required")
    return domain.verify(Trajectory(function.prompt("p"), (), answer or "")).value or 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_worked_answers_are_right_and_guesses_seldom(level: int) -> None:
    draw, domain = Random(3), Coding(Coding.Config())
    some = list(islice(functions(level, draw), 12))
    assert all(judged(domain, function, function.worked()) == 1.0 for function in some)
    assert sum(judged(domain, function, function.guessed(draw)) for function in some) < 2


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            Function(1, (3, 4, 2, 5), "{}{}{}{}"),
            "<think>3*2=6 4*2=8 8-5=3</think>```python\ndef f(x): return 6*x+3\n```",
        ),
        (
            Function(2, (3, 18, 4, 23), "{}{}{}{}"),
            "<think>23-18=5 5*3=15 18-15=3</think>```python\ndef f(x): return 5*x+3\n```",
        ),
        (
            Function(3, (3, 4, 5, 2, 6), "{}{}{}{}{}"),
            "<think>4+5=9 2*6=12</think>```python\ndef f(x): return 3*x if x<9 else x-12\n```",
        ),
        (
            Function(4, (1, 5, 2, 8), "{}{}{}{}"),
            "<think>8-5=3 3*1=3 5-3=2 3*3=9 3*2=6 6+2=8</think>```python\ndef f(x): return 9*x+8\n```",
        ),
    ],
)  # fmt: skip
def test_a_worked_answer_shows_every_equation(function: Function, said: str) -> None:
    assert function.worked()[0]["content"] == said


def test_the_tests_tell_any_two_functions_apart() -> None:
    """By the expected outputs alone: no test of one is passed by the other's values."""
    draw = Random(5)
    some = {function.solution: function for level in LEVELS for function in islice(functions(level, draw), 100)}
    for one, other in combinations(some.values(), 2):
        space: dict[str, object] = {}
        exec(other.solution, space)  # our own text
        tests = one.prompt("p").metadata["unit_tests"]
        assert len(tests["inputs"]) >= 5
        values = [str(space["f"](int(x))) for x in tests["inputs"]]  # type: ignore[operator]
        assert values != tests["outputs"], (one.solution, other.solution)


def test_levels_are_mixed_evenly_and_the_hard_suite_is_another_level() -> None:
    domain = Coding(Coding.Config(levels=(1, 3), size=100))
    assert Counter(prompt.metadata["level"] for prompt in domain.prompts("train")) == {1: 50, 3: 50}
    assert {prompt.metadata["level"] for prompt in domain.prompts("coding-hard")} == {4}
    assert len(list(domain.prompts("coding-heldout"))) >= 400
    assert len(list(domain.prompts("coding-hard"))) >= 150


def test_refuses_unknown_levels_splits_and_settings() -> None:
    with pytest.raises(ValidationError, match="1, 2, 3 or 4"):
        Coding.Config(levels=(1, 99))
    with pytest.raises(DataError, match="coding-heldout"):
        list(Coding(Coding.Config()).prompts("nothing"))
    for sandbox in (
        {"use": "docker"},
        {"use": "namespace", "url": "http://localhost"},
        {"use": "sandbox-fusion"},
        {"use": "sandbox-fusion", "url": "localhost:8080"},
        {"use": "sandbox-fusion", "url": "http://me:secret@localhost:8080"},
        {"use": "sandbox-fusion", "url": "http://localhost:8080", "allow_weak_isolation": True},
    ):
        with pytest.raises(ValidationError):
            Coding.Config.model_validate({"sandbox": sandbox})
