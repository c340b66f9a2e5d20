"""``DomainContract``: what every domain must hold; subclass it in three lines."""

from __future__ import annotations

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

from m2rl_core.interfaces import Domain
from m2rl_core.rewards import reasoning
from m2rl_core.types import Conversation, Message, Prompt, Reward, Trajectory

__all__ = ["DomainContract"]

JUNK = (
    "",
    " \n\t ",
    "I do not know.",
    "0" * 50_000,
    "\\boxed{",
    "\\boxed{}",
    "{" * 5_000,
    "<think>",
    "Answer:",
    "Answer: A, B, C, D, 0, 1 or 2",
    "__import__('os').abort()",
    '{"name": null}',
    "\x00\ufffd\u202e",
)
NO_GOLD: tuple[object, ...] = (None, "", [])


class DomainContract:
    """Checks of a domain whose verifier runs in a worker.

    ::

        class TestMine(DomainContract):
            domain = Mine(Mine.Config())
    """

    domain: ClassVar[Domain]
    right: ClassVar[str] = "{}"
    """A right answer, with ``{}`` for the prompt's gold, where the domain's own ``gold`` gives none."""
    has_gold: ClassVar[bool] = True
    """Whether prompts carry a ``ground_truth`` that the verifier cannot do without."""
    secret: ClassVar[bool] = True
    """Whether the prompt must not show the right answer as :meth:`gold` spells it."""
    looked_at: ClassVar[int] = 2_000
    """Prompts of each split, and demonstrations, that are read."""

    def gold(self, prompt: Prompt) -> str:
        """A right answer to ``prompt``, reasoning excluded."""
        answer = self.domain.gold(prompt)
        return self.right.format(prompt.ground_truth) if answer is None else answer

    def question(self, messages: Sequence[Message]) -> object:
        """What a conversation asks, whatever the wording; for a procedural domain its numbers, say."""
        return tuple(message["content"] for message in messages if message["role"] == "user")

    def judged(self, prompt: Prompt, answer: str) -> Reward:
        """The verdict on a single-turn ``answer``; a domain of several turns overrides this."""
        return self.domain.verify(self._trajectory(prompt, answer))

    def _trajectory(self, prompt: Prompt, answer: str) -> Trajectory:
        return Trajectory(prompt, (Message(role="assistant", content=answer),), answer)

    def _splits(self) -> list[str]:
        return ["train", *(name for name, suite in self.domain.suites.items() if not suite.missing)]

    def _prompts(self, split: str) -> list[Prompt]:
        return list(islice(self.domain.prompts(split), self.looked_at))

    def _some(self, count: int = 50) -> Iterator[Prompt]:
        for split in self._splits():
            yield from islice(self.domain.prompts(split), count)

    def _demonstrations(self) -> list[Conversation]:
        return list(islice(self.domain.demonstrations(), self.looked_at))

    def test_every_split_has_prompts(self) -> None:
        for split in self._splits():
            assert self._prompts(split), split

    def test_prompts_have_ids_of_their_own_and_end_with_a_question(self) -> None:
        for split in self._splits():
            prompts = self._prompts(split)
            assert len({prompt.id for prompt in prompts}) == len(prompts), split
            assert all(prompt.domain == self.domain.name for prompt in prompts)
            assert all(prompt.messages[-1]["role"] == "user" for prompt in prompts)

    def test_prompts_are_plain_data(self) -> None:
        for prompt in self._some():
            assert pickle.loads(pickle.dumps(prompt)) == prompt
            json.dumps(dataclasses.asdict(prompt))

    def test_prompts_and_demonstrations_are_the_same_every_time(self) -> None:
        build: Any = type(self.domain)
        again: Domain = build(self.domain.Config.model_validate(self._config()))
        for split in self._splits():
            assert list(islice(again.prompts(split), self.looked_at)) == self._prompts(split), split
        assert list(islice(again.demonstrations(), self.looked_at)) == self._demonstrations()

    def test_evaluation_prompts_are_not_trained_on(self) -> None:
        held_out = {self.question(p.messages) for split in self._splits()[1:] for p in self._prompts(split)}
        trained = [prompt.messages for prompt in self._prompts("train")]
        shown = [conversation.messages for conversation in self._demonstrations()]
        leaked = held_out & {self.question(messages) for messages in trained + shown}
        assert not leaked, sorted(map(str, leaked))[:5]

    def test_demonstrations_close_their_reasoning(self) -> None:
        for conversation in self._demonstrations():
            last = conversation.messages[-1]
            assert last["role"] == "assistant"
            assert reasoning.split(last["content"], "required")[0], last["content"]

    def test_gold_is_right(self) -> None:
        for prompt in self._some():
            assert self.judged(prompt, self.gold(prompt)).value == 1.0, (prompt.id, self.gold(prompt))

    def test_junk_is_wrong_and_quick(self) -> None:
        prompt = next(iter(self.domain.prompts("train")))
        self._elsewhere([self._trajectory(prompt, junk) for junk in JUNK])  # first where what hangs can be ended
        for junk in JUNK:
            started = time.process_time()
            assert self.judged(prompt, junk).value == 0.0, junk[:80]
            assert time.process_time() - started < self.domain.verify_seconds, junk[:80]

    def test_the_answer_to_another_prompt_is_wrong(self) -> None:
        prompts = list(self._some())
        for prompt, other in zip(prompts, prompts[1:] + prompts[:1], strict=True):
            if self.gold(prompt) != self.gold(other):
                assert self.judged(prompt, self.gold(other)).value == 0.0, (prompt.id, other.id)

    def test_a_prompt_without_gold_earns_nothing(self) -> None:
        for prompt in islice(self._some(), 5 if self.has_gold else 0):
            for missing in NO_GOLD:
                for answer in ("", self.gold(prompt)):
                    try:
                        reward = self.judged(dataclasses.replace(prompt, ground_truth=missing), answer)
                    except Exception:  # raising is how a verifier fails
                        continue
                    assert reward.value is None, f"gold {missing!r}, answer {answer!r}"

    def test_the_prompt_does_not_tell_its_answer(self) -> None:
        for prompt in self._some():
            shown = " ".join(message["content"] for message in prompt.messages)
            assert not self.secret or self.gold(prompt) not in shown, prompt.id

    def test_verdicts_are_the_same_every_time_and_need_no_torch(self) -> None:
        """In a fresh process, as verifier workers are."""
        trajectories = [self._trajectory(p, a) for p in self._some(3) for a in (self.gold(p), "I do not know.")]
        here = [self.domain.verify(trajectory) for trajectory in trajectories]
        assert self._elsewhere(trajectories) == here

    def _elsewhere(self, trajectories: Sequence[Trajectory]) -> list[Reward]:
        """The verdicts of a fresh process that is killed at the limits of a verifier worker, CPU and wall time."""
        work = pickle.dumps((type(self.domain), self._config(), self.domain.verify_seconds, trajectories))
        done = subprocess.run([sys.executable, "-c", _ELSEWHERE], input=work, capture_output=True, check=False)
        told = done.stderr.decode()
        overran = done.returncode in (-signal.SIGXCPU, -signal.SIGALRM)
        assert not overran, f"takes longer than verify_seconds: {told.splitlines()[-1]}"
        assert done.returncode == 0, told
        verdicts: list[Reward] = pickle.loads(done.stdout)
        return verdicts

    def _config(self) -> dict[str, Any]:
        config = getattr(self.domain, "config", None)
        return {} if config is None else dict(config.model_dump(mode="json"))


_ELSEWHERE = """
import math, pickle, resource, signal, sys, time
domain, config, seconds, trajectories = pickle.load(sys.stdin.buffer)
built = domain(domain.Config.model_validate(config))
_, hard = resource.getrlimit(resource.RLIMIT_CPU)
rewards = []
for trajectory in trajectories:
    sys.stderr.write(ascii(trajectory.answer[:80]) + "\\n")
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), hard))
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
    try:
        rewards.append(built.verify(trajectory))
    except Exception as error:
        rewards.append(repr(error))
    signal.setitimer(signal.ITIMER_REAL, 0)
assert "torch" not in sys.modules, "verify imports torch"
sys.stdout.buffer.write(pickle.dumps(rewards))
"""
