"""The contract of every domain, and the promises of the generated problems."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import pytest
from pydantic import ValidationError

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.testing import DomainContract
from m2rl_core.types import Conversation, Message, Prompt, Trajectory
from m2rl_domain_math import Math
from m2rl_domain_math.problems import Problem


def numbers(messages: Sequence[Message]) -> str:
    """What is asked, whatever the phrasing: ``12 + 34`` and ``34 + 12`` are one question."""
    asked = "".join(re.findall(r"[0-9]+|[-+*]", messages[0]["content"]))
    return asked if "-" in asked else "+".join(sorted(asked.split("+")))


class TestMath(DomainContract):
    domain = Math(Math.Config())

    def question(self, messages: Sequence[Message]) -> str:
        return numbers(messages)


def judged(domain: Math, shown: Conversation) -> float | None:
    """The verdict on a demonstration, with the gold computed here."""
    found = re.search(r"([0-9]+) ([-+]) ([0-9]+)", shown.messages[0]["content"])
    assert found
    left, right = int(found[1]), int(found[3])
    gold = left + right if found[2] == "+" else left - right
    answer, reason = split(shown.messages[1]["content"], "required")
    assert answer, reason
    return domain.verify(Trajectory(Prompt("d", "math", shown.messages[:1], str(gold)), (), answer)).value


def test_gold_is_the_result() -> None:
    for prompt in islice(Math(Math.Config()).prompts("train"), 300):
        asked = re.search(r"[0-9]+ [-+] [0-9]+", prompt.messages[0]["content"])
        assert asked
        left, sign, right = asked.group().split()
        assert int(prompt.ground_truth) == int(left) + (int(right) if sign == "+" else -int(right))


@pytest.mark.parametrize("hasty", [0.0, 0.4, 1.0])
def test_worked_solutions_are_right_and_guesses_are_not(hasty: float) -> None:
    shown = list(islice(Math(Math.Config(hasty=hasty)).demonstrations(), 600))
    worked = [each for each in shown if "=" in each.messages[1]["content"]]
    assert len(worked) / 600 == pytest.approx(1 - hasty, abs=0.08)
    assert all(judged(Math(Math.Config()), each) == 1.0 for each in worked)
    guessed = [each for each in shown if each not in worked]
    assert sum(judged(Math(Math.Config()), each) or 0.0 for each in guessed) <= 0.05 * len(guessed)


def test_a_worked_solution_carries_as_on_paper() -> None:
    [said] = Problem(1, 47, 38, "+", "Find {}.").worked()
    assert said["content"] == "<think>7+8+0=15 4+3+1=8</think>\\boxed{85}"
    [said] = Problem(3, 53, 27, "-", "Find {}.").worked()
    assert said["content"] == "<think>3-7-0=-4 5-2-1=2</think>\\boxed{26}"


def test_levels_are_mixed_evenly_and_the_hard_suite_is_another_level() -> None:
    domain = Math(Math.Config(levels=(1, 3), size=100))
    assert Counter(prompt.metadata["level"] for prompt in domain.prompts("train")) == {1: 50, 3: 50}
    assert {prompt.metadata["level"] for prompt in domain.prompts("math-hard")}.isdisjoint({1, 2, 3})
    assert len(list(domain.prompts("math-heldout"))) >= 400
    assert len(list(domain.prompts("math-hard"))) >= 200


def test_another_seed_asks_other_problems() -> None:
    first = {numbers(p.messages) for p in Math(Math.Config(seed=1, size=200)).prompts("train")}
    second = {numbers(p.messages) for p in Math(Math.Config(seed=2, size=200)).prompts("train")}
    assert len(first & second) < 40


def test_refuses_unknown_levels_and_splits() -> None:
    with pytest.raises(ValidationError, match="1, 2, 3 or 4"):
        Math.Config(levels=(1, 99))
    with pytest.raises(DataError, match="math-heldout"):
        list(Math(Math.Config()).prompts("nothing"))
