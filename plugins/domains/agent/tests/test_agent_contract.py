"""The contract of every domain, and the promises of the generated tasks."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from random import Random

import pytest
from pydantic import ValidationError

from m2rl_core.errors import DataError
from m2rl_core.init import fresh_tokenizer
from m2rl_core.testing import DomainContract
from m2rl_core.types import Conversation, Message, Prompt, Reward, Trajectory
from m2rl_domain_agent import Agent
from m2rl_domain_agent.calls import calls
from m2rl_domain_agent.questions import LEVELS, Question, questions

DOMAIN = Agent(Agent.Config())


class TestAgent(DomainContract):
    domain = DOMAIN
    has_gold = False  # an empty list of gold calls is gold: nothing is to be done

    def judged(self, prompt: Prompt, answer: str) -> Reward:
        """After an episode in the environment: the answer's calls, what they bring, a last word."""
        said = [Message(role="assistant", content=answer)]
        said += asyncio.run(DOMAIN.open(prompt).reply(answer))
        return DOMAIN.verify(Trajectory(prompt, (*said, Message(role="assistant", content="Done.")), "Done."))


def some(level: int, size: int = 200) -> list[Question]:
    return list(islice(questions(level, Random(3)), size))


def verdict(question: Question, said: Sequence[Message]) -> float | None:
    return DOMAIN.verify(Trajectory(question.prompt("p"), tuple(said), "Done.")).value


@pytest.mark.parametrize("level", LEVELS)
def test_worked_answers_are_right_and_guesses_seldom(level: int) -> None:
    draw = Random(3)
    assert all(verdict(question, question.worked()) == 1.0 for question in some(level))
    assert sum(verdict(question, question.guessed(draw)) or 0.0 for question in some(level)) <= 10


@pytest.mark.parametrize("level", LEVELS)
def test_demonstrations_say_exactly_what_the_environment_answers(level: int) -> None:
    draw = Random(5)
    for question in some(level, 40):
        for said in (question.worked(), question.guessed(draw)):
            episode = DOMAIN.open(question.prompt("p"))
            heard: list[Message] = []
            for message in said:
                if message["role"] == "assistant":
                    heard = asyncio.run(episode.reply(message["content"]))
                else:
                    assert heard == [message]
            assert not heard


@pytest.mark.parametrize("level", LEVELS)
def test_the_last_step_depends_on_what_was_found(level: int) -> None:
    for question in some(level):
        prompt = question.prompt("p")
        turns = [calls(message["content"]) for message in question.worked() if message["role"] == "assistant"]
        assert len(turns) == len(question.steps) + 1 >= 3
        assert [call.name for [call] in turns[:-1]] == [step.tool for step in question.steps]
        assert {str(tool["name"]) for tool in prompt.tools} == {step.tool for step in question.steps}
        text = prompt.messages[0]["content"]
        for value in question.found:
            assert value not in text or level == 4  # there it is one of two
            assert value in question.steps[-1].arguments


def test_the_same_task_has_another_answer_in_another_company() -> None:
    answers: dict[object, set[str]] = {}
    for question in some(3, 20_000):
        answers.setdefault(question.asked, set()).add(question.steps[-1].arguments)
    several = [found for found in answers.values() if len(found) > 1]
    assert len(several) > 1_000


def test_a_million_parameters_can_hold_a_trajectory() -> None:
    def corpus(share: int) -> list[str]:
        shown = islice(DOMAIN.demonstrations(), share)
        return [f"{m['role']}\n{m['content']}" for conversation in shown for m in conversation.messages]

    from m2rl_core.chat import Chat

    chat = Chat(fresh_tokenizer(iter(corpus(1_000)), 512, 512))
    for level in LEVELS:
        for question in some(level, 50):
            prompt = question.prompt("p")
            talk = Conversation("c", "agent", (*prompt.messages, *question.worked()), prompt.tools)
            ids, said = chat.conversation(talk)
            assert len(chat.encode(prompt.messages, prompt.tools)) <= 120
            assert len(ids) <= 250
            assert sum(said) <= Agent.max_tokens
            turns = [message["content"] for message in talk.messages if message["role"] == "assistant"]
            assert max(len(chat.turn(turn)) for turn in turns) <= 40


def test_levels_are_mixed_evenly_and_the_hard_suite_is_another_level() -> None:
    domain = Agent(Agent.Config(levels=(1, 3), size=100))
    assert Counter(prompt.metadata["level"] for prompt in domain.prompts("train")) == {1: 50, 3: 50}
    assert {prompt.metadata["level"] for prompt in domain.prompts("agent-hard")} == {4}
    assert len(list(domain.prompts("agent-heldout"))) == 512
    assert len(list(domain.prompts("agent-hard"))) == 256
    assert domain.suites["agent-heldout"].max_tokens == Agent.max_tokens


def test_hasty_demonstrations_act_without_having_looked() -> None:
    shown = list(islice(DOMAIN.demonstrations(), 1_000))
    first = [str(conversation.messages[1]["content"]) for conversation in shown]
    hasty = sum(bool(re.search(r'"(email_forward|project_management_delete)', text)) for text in first)
    assert hasty / 1_000 == pytest.approx(0.35, abs=0.05)
    assert {message["role"] for conversation in shown for message in conversation.messages} == {
        "user", "assistant", "tool",
    }  # fmt: skip


def test_refuses_unknown_settings() -> None:
    with pytest.raises(ValidationError, match="1, 2, 3 or 4"):
        Agent.Config(levels=(1, 99))
    for environment in ({"use": "docker"}, {"use": "nemo-gym"}, {"use": "nemo-gym", "url": "ftp://x"}):
        with pytest.raises(ValidationError):
            Agent.Config.model_validate({"environment": environment})
    with pytest.raises(DataError, match="agent-heldout"):
        list(DOMAIN.prompts("nothing"))
    for url in ("http://user:secret@host", "http://host/?key=1"):
        with pytest.raises(ValidationError):
            Agent.Config.model_validate({"environment": {"use": "nemo-gym", "url": url}})
