"""Episodes: what is trained on is exactly what was sampled, whatever the environment does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from m2rl_core.chat import Chat
from m2rl_core.interfaces import ComponentConfig, Domain, Episode, SingleTurn
from m2rl_core.rollout.episodes import Sampler
from m2rl_core.rollout.records import from_record, summarise, to_record
from m2rl_core.rollout.verifiers import Verdicts
from m2rl_core.types import Message, Prompt, Reasoning, Reward, Sampling, Suite, Trajectory


class Oracle(Domain):
    """Answers every assistant turn with the number of turns so far; right where the answer says ``yes``."""

    name, reference = "oracle", "test"
    Config = ComponentConfig
    suites: Mapping[str, Suite] = {}

    def __init__(self, turns: int = 1, history: Literal["keep", "drop"] = "keep") -> None:
        self.turns, self.history = turns, history
        self.closed = 0

    def prompts(self, split: str) -> list[Prompt]:
        return [Prompt(str(i), "oracle", ({"role": "user", "content": f"{i}?"},)) for i in range(4)]

    def open(self, prompt: Prompt) -> Episode:
        if self.turns == 1:
            return SingleTurn()
        oracle = self

        class Talk:
            max_turns = oracle.turns
            history = oracle.history
            count = 0

            async def reply(self, text: str) -> list[Message]:
                self.count += 1
                if "boom" in text:
                    raise OSError("the tool server is gone")
                return [] if "bye" in text else [{"role": "tool", "content": f"turn {self.count}"}]

            async def close(self) -> None:
                oracle.closed += 1

        return Talk()

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(float("yes" in trajectory.answer), "said so")


class InlinePool:
    """The pool's interface without processes: these tests are about tokens."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    async def verify(self, domain: str, trajectory: Trajectory) -> Verdicts:
        return Verdicts(self.domain.verify(trajectory), 0.25)

    def close(self) -> None: ...


Say = Callable[[int, int], str]


@pytest.fixture
def play(tiny_model: Path, fake_engine: Any) -> Callable[..., tuple[Any, ...]]:
    """(groups, engine, chat, domain, charges) of a rollout where ``say(turn, sample)`` is what the model says."""
    chat = Chat.load(tiny_model)

    def run(
        say: Say, domain: Oracle, *, n: int = 3, max_tokens: int = 200, reasoning: Reasoning = "off"
    ) -> tuple[Any, ...]:
        def script(context: list[int], sample: int) -> list[int]:
            turn = chat.tokenizer.decode(context).count("<|im_start|>assistant") - 1
            return chat.turn(say(turn, sample))[:-1]

        engine = fake_engine(script)
        charges: dict[str, float] = {}

        def charge(kind: str, seconds: float) -> None:
            charges[kind] = charges.get(kind, 0.0) + seconds

        with Sampler(
            engine, chat, {"oracle": domain}, InlinePool(domain),  # type: ignore[arg-type]
            model=tiny_model, context=1024, reasoning={"oracle": reasoning}, charge=charge,
        ) as sampler:  # fmt: skip
            groups = sampler.rollout(domain.prompts("train"), Sampling(max_tokens), n)
        return groups, engine, chat, domain, charges

    return run


def test_single_turns_in_the_order_of_the_prompts(play: Any) -> None:
    groups, engine, chat, _, charges = play(lambda turn, sample: "yes" if sample else "no", Oracle())
    assert [g.prompt.id for g in groups] == ["0", "1", "2", "3"]
    for group in groups:
        assert [s.reward.value for s in group.samples_G] == [0.0, 1.0, 1.0]
        assert [s.index for s in group.samples_G] == [0, 1, 2]
        for sample in group.samples_G:
            prompt = chat.encode(group.prompt.messages)
            assert sample.ids_L[: len(prompt)] == prompt
            assert sample.sampled_L == [False] * len(prompt) + [True] * sample.length
            assert chat.decode(sample.ids_L[len(prompt) :]) == ("yes" if sample.index else "no")
    assert len(engine.contexts) == 4  # one shared prefill per prompt
    assert charges == {"verify/oracle": 12 * 0.25}


class SlowPool(InlinePool):
    """Its verifier of the domain ``slow`` takes its time."""

    async def verify(self, domain: str, trajectory: Trajectory) -> Verdicts:
        await asyncio.sleep(0.05 if domain == "slow" else 0.0)
        return await super().verify(domain, trajectory)


def test_what_a_domain_waits_for_the_slowest_is_charged(tiny_model: Path, fake_engine: Any) -> None:
    chat, domain, charges = Chat.load(tiny_model), Oracle(), dict[str, float]()
    engine = fake_engine(lambda context, sample: chat.turn("yes")[:-1])
    prompts = [replace(p, domain=name) for name in ("oracle", "slow") for p in domain.prompts("train")]
    with Sampler(
        engine, chat, {"oracle": domain, "slow": domain}, SlowPool(domain),  # type: ignore[arg-type]
        model=tiny_model, context=1024, reasoning={"oracle": "off", "slow": "off"},
        charge=lambda kind, seconds: charges.update({kind: charges.get(kind, 0.0) + seconds}),
    ) as sampler:  # fmt: skip
        sampler.rollout(prompts, Sampling(20), 2)
    assert charges["wait/slow"] == 0.0
    assert 0.03 < charges["wait/oracle"] < 10


@pytest.mark.parametrize("history", ["keep", "drop"])
def test_every_sampled_context_is_a_prefix_of_what_is_trained(play: Any, history: Literal["keep", "drop"]) -> None:
    def say(turn: int, sample: int) -> str:
        return f"<think>t{turn}</think>{'bye yes' if turn == 1 + sample else 'go'}"

    groups, engine, _, domain, _ = play(say, Oracle(6, history))
    trained = []
    for sample in (s for g in groups for s in g.samples_G):
        bounds = [*sample.starts, len(sample.ids_L)]
        trained += [sample.ids_L[a:b] for a, b in itertools.pairwise(bounds)]
    for context in engine.contexts:
        assert any(ids[: len(context)] == context for ids in trained)
    sample = groups[0].samples_G[1]
    assert len(sample.starts) == (1 if history == "keep" else 3)
    assert sample.reward.value == 1.0
    assert domain.closed == 12


def test_keep_grows_one_list_and_masks_what_the_environment_says(play: Any) -> None:
    groups, _, chat, _, _ = play(lambda turn, _: "bye" if turn == 2 else f"go {turn}", Oracle(6), n=1)
    sample = groups[0].samples_G[0]
    expected = chat.encode(sample.prompt.messages)
    for turn in range(2):
        expected += chat.turn(f"go {turn}") + chat.continuation([{"role": "tool", "content": f"turn {turn + 1}"}])
    assert sample.ids_L == expected + chat.turn("bye")
    said = [i for i, s in zip(sample.ids_L, sample.sampled_L, strict=True) if s]
    assert said == chat.turn("go 0") + chat.turn("go 1") + chat.turn("bye")
    assert all((v >= 0) == s for v, s in zip(sample.versions_L, sample.sampled_L, strict=True))


def test_drop_removes_earlier_reasoning_from_the_context(play: Any) -> None:
    def say(turn: int, _: int) -> str:
        return f"<think>secret</think>{'bye' if turn == 1 else 'go'}"

    groups, engine, chat, _, _ = play(say, Oracle(6, "drop"), n=1)
    later = [chat.tokenizer.decode(c) for c in engine.contexts if "turn 1" in chat.tokenizer.decode(c)]
    assert later
    assert not any("secret" in text for text in later)
    assert "secret" in groups[0].samples_G[0].trajectory.messages[0]["content"]


def test_the_turn_limit_and_the_token_budget_end_an_episode(play: Any) -> None:
    groups, *_ = play(lambda turn, _: "go", Oracle(3), n=1)
    assert sum(m["role"] == "assistant" for m in groups[0].samples_G[0].trajectory.messages) == 3
    groups, *_ = play(lambda turn, _: "go go go go", Oracle(9), n=1, max_tokens=12)
    sample = groups[0].samples_G[0]
    assert sample.length == 12
    assert sample.finish == "length"
    assert sample.trajectory.truncated


def test_a_failing_environment_is_a_failed_verdict(play: Any) -> None:
    groups, _, _, domain, _ = play(lambda turn, sample: "boom" if sample == 1 else "bye yes", Oracle(4))
    assert [s.reward.value for s in groups[0].samples_G] == [1.0, None, 1.0]
    assert "OSError: the tool server is gone" in groups[0].samples_G[1].reward.reason
    assert domain.closed == 12
    assert [s.index for s in groups[0].usable] == [0, 2]


@pytest.mark.parametrize(
    ("said", "value"),
    [("<think>a</think>yes", 1.0), ("yes", 0.0), ("<think>yes", 0.0), ("<think>a</think>no</think>yes", 0.0)],
)
def test_the_format_gate_comes_before_the_verifier(play: Any, said: str, value: float) -> None:
    groups, *_ = play(lambda turn, _: said, Oracle(), n=1, reasoning="required")
    assert groups[0].samples_G[0].reward.value == value


def test_a_prompt_drawn_twice_gets_other_noise(play: Any, tiny_model: Path, fake_engine: Any) -> None:
    seeds: list[int] = []

    class Recording(fake_engine):  # type: ignore[misc]
        async def generate(self, ids: list[int], sampling: Sampling, n: int) -> Any:
            seeds.append(sampling.seed)
            return await super().generate(ids, sampling, n)

    domain, chat = Oracle(), Chat.load(tiny_model)
    engine = Recording(lambda context, sample: [1])
    with Sampler(
        engine, chat, {"oracle": domain}, InlinePool(domain),  # type: ignore[arg-type]
        model=tiny_model, context=99, reasoning={"oracle": "off"},
    ) as sampler:  # fmt: skip
        prompt = domain.prompts("train")[0]
        sampler.rollout([prompt, prompt], Sampling(4, seed=1), 1)
        sampler.rollout([prompt], Sampling(4, seed=1), 1)
        sampler.rollout([prompt], Sampling(4, seed=2), 1)
    assert seeds[0] == seeds[2]
    assert len(set(seeds)) == 3


def test_records_come_back_whole(play: Any) -> None:
    groups, *_ = play(lambda turn, _: "<think>x</think>bye" if turn else "go", Oracle(6, "drop"), n=2)
    for sample in groups[0].samples_G:
        again = from_record(to_record(sample))
        assert to_record(again) == to_record(sample)
        assert again.trajectory == sample.trajectory


def test_metrics_by_hand(play: Any) -> None:
    groups, *_ = play(lambda turn, sample: ["yes", "no", "boom"][sample], Oracle(2))
    metrics = summarise(groups)
    assert metrics["reward"] == metrics["reward/oracle"] == 0.5
    assert metrics["verifier_failures"] == pytest.approx(1 / 3)
    assert metrics["zero_variance"] == 0.0
    assert metrics["samples"] == 12
