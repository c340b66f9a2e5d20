"""Demonstrations of judging: balanced, truly right and wrong, in the words that an analyzer asks with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import pytest

from m2rl_core.errors import DataError
from m2rl_core.judging.prompts import OUTCOME, PROCESS, ask, verdict
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.types import Conversation, Message, Prompt, Reward, Trajectory


@dataclass(frozen=True)
class Double:
    """``n + n``; every second guess is right."""

    n: int

    @property
    def identity(self) -> tuple[int | str, ...]:
        return (self.n,)

    def prompt(self, key: str) -> Prompt:
        return Prompt(key, "doubles", (Message(role="user", content=f"{self.n}+{self.n}?"),), str(2 * self.n))

    def worked(self) -> tuple[Message, ...]:
        return (Message(role="assistant", content=f"<think>twice {self.n}</think>{2 * self.n}"),)

    def guessed(self, draw: Random) -> tuple[Message, ...]:
        return (Message(role="assistant", content=f"<think></think>{2 * self.n + draw.randrange(2)}"),)


class Doubles(ProceduralDomain):
    name = "doubles"
    reference = "a test"
    levels = {1: "a double"}
    Config = ProceduralConfig

    def __init__(self, config: ProceduralConfig) -> None:
        self.config = config

    def questions(self, level: int, draw: Random) -> Iterator[Double]:
        while True:
            yield Double(draw.randrange(100, 1000))

    def rows(self) -> Iterator[Prompt]:
        return iter(())

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(float(trajectory.answer == trajectory.prompt.ground_truth))


class Stubborn(Doubles):
    """Calls everything right."""

    name = "stubborn"

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(1.0)


class Talkative(Doubles):
    name = "talkative"

    def questions(self, level: int, draw: Random) -> Iterator[Double]:
        while True:
            yield Chatty(draw.randrange(100, 1000))


class Chatty(Double):
    def worked(self) -> tuple[Message, ...]:
        return (*super().worked(), Message(role="tool", content="?"), *super().worked())


def shown(
    judged: float, count: int = 800, domain: Callable[[ProceduralConfig], Doubles] = Doubles
) -> list[Conversation]:
    config = ProceduralConfig(levels=(1,), judged=judged)
    return list(islice(domain(config).demonstrations(), count))


def judgements(conversations: list[Conversation]) -> list[Conversation]:
    return [c for c in conversations if verdict(c.messages[1]["content"]) is not None]


@pytest.mark.parametrize("judged", [0.0, 0.25, 1.0])
def test_a_share_of_the_demonstrations_judges(judged: float) -> None:
    assert len(judgements(shown(judged))) / 800 == pytest.approx(judged, abs=0.05)


def test_without_judgements_nothing_has_changed() -> None:
    """What the blend held before there were judgements: its first four conversations."""
    said = [c.messages[1]["content"] for c in shown(0.0, 4)]
    assert [("twice" in text, text.partition("</think>")[2]) for text in said] == FIRST


FIRST = [(False, "743"), (True, "216"), (False, "1046"), (True, "1638")]


def test_right_and_wrong_and_both_ways_to_ask_are_even() -> None:
    kinds = Counter(
        ("Reasoning:" in c.messages[0]["content"], verdict(c.messages[1]["content"])) for c in shown(1.0, 800)
    )
    assert kinds == dict.fromkeys([(a, b) for a in (False, True) for b in (False, True)], 200)


def test_every_verdict_is_true() -> None:
    for conversation in shown(1.0):
        asked = conversation.messages[0]["content"]
        n = int(asked.partition("+")[0])
        answer = asked.partition("Answer: ")[2].partition("\n")[0]
        assert verdict(conversation.messages[1]["content"]) == (answer == str(2 * n)), asked


def test_the_judge_works_the_question_out_before_it_compares() -> None:
    for conversation in shown(1.0, 50):
        asked, replied = (message["content"] for message in conversation.messages)
        n, answer = int(asked.partition("+")[0]), asked.partition("Answer: ")[2].partition("\n")[0]
        assert replied.startswith(f"<think>twice {n} {2 * n} or {answer}</think>Verdict: ")


def test_wrong_answers_are_of_several_kinds() -> None:
    wrong = [c for c in shown(1.0) if verdict(c.messages[1]["content"]) is False and "Reasoning:" in str(c.messages[0])]
    thoughts = [c.messages[0]["content"].partition("Reasoning: ")[2].partition("\n")[0] for c in wrong]
    own = [f"twice {c.messages[0]['content'].partition('+')[0]}" for c in wrong]
    kinds = Counter(
        "none" if t == "(none)" else "own" if t == o else "other" for t, o in zip(thoughts, own, strict=True)
    )
    assert min(kinds[each] for each in ("none", "own", "other")) > len(wrong) / 10


def test_the_words_are_those_of_the_judge_prompts() -> None:
    for conversation in shown(1.0, 100):
        text = conversation.messages[0]["content"]
        question, _, rest = text.partition("\n\n")
        reasoning, _, answer = rest.rpartition("Answer: ")
        answer = answer.partition("\n")[0]
        reasoning = reasoning.removeprefix("Reasoning: ").strip()
        template = PROCESS if "Reasoning:" in text else OUTCOME
        assert ask(template, (Message(role="user", content=question),), reasoning, answer)["content"] == text


def test_refusals_name_the_domain() -> None:
    with pytest.raises(DataError, match=r"no wrong answer to.*'doubles'"):
        shown(1.0, 10, Stubborn)
    with pytest.raises(DataError, match=r"several turns.*domains\.doubles\.judged"):
        shown(1.0, 10, Talkative)


def test_several_turns_are_refused_before_a_run() -> None:
    with pytest.raises(DataError, match="several turns"):
        Talkative(ProceduralConfig(levels=(1,), judged=0.1)).check()
    Talkative(ProceduralConfig(levels=(1,))).check()
    Doubles(ProceduralConfig(levels=(1,), judged=0.1)).check()
