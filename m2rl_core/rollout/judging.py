"""Judging what was said, by whoever it was sampled: the format gate, then the domain's verifier.

:class:`~m2rl_core.rollout.episodes.Sampler` judges as it samples; :func:`judged` judges a stream of finished
conversations, which may be longer than memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from m2rl_core.rewards.reasoning import split
from m2rl_core.rollout.verifiers import Verdicts, VerifierPool
from m2rl_core.types import Message, Prompt, Reasoning, Reward, Trajectory

__all__ = ["Case", "gated", "judged"]

T = TypeVar("T")

IN_FLIGHT = 512
"""Conversations that are held at a time: enough for the workers not to wait while the first one is slow."""


@dataclass(frozen=True, slots=True)
class Case(Generic[T]):
    """One conversation to be judged."""

    of: T
    """What the caller knows it by."""
    domain: str
    """Name of its verifier in the pool."""
    prompt: Prompt
    said: Sequence[Message]
    """Everything after the prompt."""
    reasoning: Reasoning = "off"
    truncated: bool = False


def gated(
    prompt: Prompt, said: Sequence[Message], reasoning: Reasoning, *, truncated: bool = False
) -> tuple[Trajectory, str]:
    """What the verifier sees of a conversation, and why the format gate refuses it; ``""`` where it does not.

    The gate looks at the last assistant turn, and so does the answer.
    """
    text = next((message["content"] for message in reversed(said) if message["role"] == "assistant"), "")
    answer, refusal = split(text, reasoning)
    return Trajectory(prompt, tuple(said), answer or "", truncated), refusal


def judged(cases: Iterable[Case[T]], pool: VerifierPool, *, in_flight: int = IN_FLIGHT) -> Iterator[tuple[T, Verdicts]]:
    """The verdicts on ``cases``, in their order; at most ``in_flight`` cases are held at a time.

    What the gate refuses is wrong without being verified.
    """
    waiting: deque[tuple[T, Future[Verdicts]]] = deque()
    try:
        for case in cases:
            waiting.append((case.of, _begun(case, pool)))
            while waiting and (len(waiting) >= in_flight or waiting[0][1].done()):
                of, verdicts = waiting.popleft()
                yield of, verdicts.result()
        while waiting:
            of, verdicts = waiting.popleft()
            yield of, verdicts.result()
    finally:
        for _, verdicts in waiting:
            verdicts.cancel()


def _begun(case: Case[T], pool: VerifierPool) -> Future[Verdicts]:
    trajectory, refusal = gated(case.prompt, case.said, case.reasoning, truncated=case.truncated)
    if not refusal:
        return pool.submit(case.domain, trajectory)
    refused: Future[Verdicts] = Future()
    refused.set_result(Verdicts(Reward(0.0, refusal), 0.0))
    return refused
