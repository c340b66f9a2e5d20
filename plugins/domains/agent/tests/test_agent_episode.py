"""Episodes of this domain in the core's loop: what is trained on is exactly what was sampled."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import pytest

from m2rl_core.chat import Chat
from m2rl_core.rollout.episodes import Sampler
from m2rl_core.rollout.verifiers import Verdicts
from m2rl_core.types import Prompt, Sampling, Trajectory
from m2rl_domain_agent import Agent
from m2rl_domain_agent.calls import Call, text_of
from m2rl_domain_agent.questions import LEVELS, Question, questions

if TYPE_CHECKING:
    from conftest import Resources

ASKED = [next(questions(level, Random(level))) for level in LEVELS]
SEARCH = text_of([Call("email_search_emails", {"query": "fix"})])


class InlinePool:
    """The pool's interface without processes: these tests are about tokens."""

    def __init__(self, domain: Agent) -> None:
        self.domain = domain

    async def verify(self, domain: str, trajectory: Trajectory) -> Verdicts:
        return Verdicts(self.domain.verify(trajectory), 0.0)

    def close(self) -> None: ...


Play = Callable[..., tuple[list[Any], list[list[int]], Chat]]


@pytest.fixture
def play(tiny_model: Path, fake_engine: Any) -> Play:
    """(groups, sampled contexts, chat) where ``say(turn, sample, context)`` is what the model says."""
    chat = Chat.load(tiny_model)

    def run(
        say: Callable[[int, int, str], str],
        prompts: Sequence[Prompt],
        history: Literal["keep", "drop"] = "keep",
        reasoning: Literal["required", "off"] = "off",
    ) -> tuple[list[Any], list[list[int]], Chat]:
        def script(context: list[int], sample: int) -> list[int]:
            text = chat.tokenizer.decode(context)
            return chat.turn(say(text.count("<|im_start|>assistant") - 1, sample, text))[:-1]

        domain = Agent(Agent.Config(history=history))
        engine = fake_engine(script)
        with Sampler(
            engine, chat, {"agent": domain}, InlinePool(domain),  # type: ignore[arg-type]
            model=tiny_model, context=100_000, reasoning={"agent": reasoning},
        ) as sampler:  # fmt: skip
            groups = sampler.rollout(prompts, Sampling(20_000), 2)
        return groups, engine.contexts, chat

    return run


def turns(question: Question, sample: int) -> list[str]:
    said = question.guessed(Random(1)) if sample else question.worked()
    return [message["content"] for message in said if message["role"] == "assistant"]


@pytest.mark.parametrize("history", ["keep", "drop"])
def test_every_sampled_context_is_a_prefix_of_what_is_trained(play: Play, history: Literal["keep", "drop"]) -> None:
    def say(turn: int, sample: int, context: str) -> str:
        [question] = [each for each in ASKED if each.asked in context]
        return turns(question, sample)[turn]

    prompts = [question.prompt(str(question.level)) for question in ASKED]
    groups, contexts, chat = play(say, prompts, history, "required")
    trained = []
    for group, question in zip(groups, ASKED, strict=True):
        right, hasty = group.samples_G
        assert (right.reward.value, hasty.reward.value) == (1.0, 0.0)
        assert right.finish == "stop"
        assert right.trajectory.messages == question.worked()
        for sample, said in ((right, turns(question, 0)), (hasty, turns(question, 1))):
            assert len(sample.starts) == (1 if history == "keep" else len(said))
            bounds = [*sample.starts, len(sample.ids_L)]
            trained += [sample.ids_L[a:b] for a, b in itertools.pairwise(bounds)]
            drawn = [i for i, is_drawn in zip(sample.ids_L, sample.sampled_L, strict=True) if is_drawn]
            assert drawn == [i for text in said for i in chat.turn(text)]  # nothing of the tools
    assert len(contexts) > 8
    for context in contexts:
        assert any(ids[: len(context)] == context for ids in trained)


def test_an_episode_grows_as_its_demonstration_is_taught(play: Play) -> None:
    from m2rl_core.types import Conversation

    for question in ASKED:
        prompt = question.prompt("p")
        [group], _, chat = play(lambda turn, sample, _, q=question: turns(q, 0)[turn], [prompt])  # type: ignore[misc]
        taught = chat.conversation(Conversation("c", "agent", (*prompt.messages, *question.worked()), prompt.tools))
        assert (group.samples_G[0].ids_L, group.samples_G[0].sampled_L) == taught


def test_six_turns_and_no_more(play: Play) -> None:
    prompt = Prompt("p", "agent", ({"role": "user", "content": "?"},), [])
    [group], contexts, _ = play(lambda turn, sample, _: SEARCH, [prompt])
    for sample in group.samples_G:
        assert [message["role"] for message in sample.trajectory.messages] == ["assistant", "tool"] * 6
        assert sample.finish == "length"
        assert sample.reward.value == 1.0  # verified as it stands: nothing was to be done
    assert len(contexts) == 1 + 2 * 5


def test_several_calls_of_a_turn_are_answered_in_order(play: Play) -> None:
    prompt = Prompt("p", "agent", ({"role": "user", "content": "?"},), [])
    look = [Call("email_get_email_information_by_id", {"email_id": f"0000000{n}", "field": "email_id"}) for n in (3, 1)]
    both, bad = text_of(look), text_of([*look, Call("nope", {})]) + "<tool_call>"
    [group], _, _ = play(lambda turn, sample, _: ("Done." if turn else both, bad)[sample], [prompt])
    said, spoilt = (sample.trajectory.messages for sample in group.samples_G)
    assert [message["role"] for message in said] == ["assistant", "tool", "tool", "assistant"]
    assert [json.loads(message["content"])["output"]["email_id"] for message in said[1:3]] == ["00000003", "00000001"]
    assert len(spoilt) == 1  # a malformed turn ends the episode, and nothing of it is carried out
    assert [sample.reward.value for sample in group.samples_G] == [1.0, 0.0]


def test_samples_of_a_group_do_not_see_each_others_changes(play: Play) -> None:
    delete = text_of([Call("email_delete_email", {"email_id": "00000100"})])
    prompt = Prompt("p", "agent", ({"role": "user", "content": "?"},), [])
    [group], _, _ = play(lambda turn, sample, _: "Done." if turn else delete, [prompt])
    for sample in group.samples_G:
        assert "deleted successfully" in sample.trajectory.messages[1]["content"]


def test_a_tool_server_killed_in_mid_rollout_is_failed_verdicts_and_no_crash(
    tiny_model: Path, fake_engine: Any, resources: Resources
) -> None:
    """The samples that were through stay, the others leave their group, and the sampler goes on."""
    environment = {"use": "nemo-gym", "url": resources.url, "timeout": 1.0}
    domain = Agent(Agent.Config.model_validate({"environment": environment, "source": "rows.jsonl"}))
    chat = Chat.load(tiny_model)

    def script(context: list[int], sample: int) -> list[int]:
        answered = chat.tokenizer.decode(context).count("<|im_start|>assistant") > 1
        if answered:
            resources.stop()
        return chat.turn(SEARCH if sample else "<tool_call>")[:-1]

    class RemotePool(InlinePool):
        async def verify(self, domain: str, trajectory: Trajectory) -> Verdicts:
            return Verdicts(await self.domain.verify_remote(trajectory), 0.0)

    with Sampler(
        fake_engine(script), chat, {"agent": domain}, RemotePool(domain),  # type: ignore[arg-type]
        model=tiny_model, context=100_000, reasoning={"agent": "off"},
    ) as sampler:  # fmt: skip
        prompts = [Prompt(key, "agent", ({"role": "user", "content": "?"},), []) for key in "ab"]
        for _ in range(2):
            for group in sampler.rollout(prompts, Sampling(20_000), 3):
                assert [sample.reward.value for sample in group.samples_G] == [0.0, None, None]
                assert all("/email_search_emails" in s.reward.reason or "/seed_session" in s.reward.reason
                           for s in group.samples_G[1:])  # fmt: skip
