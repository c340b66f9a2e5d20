"""From m2rl's words to vLLM's and back: requests, noise, and what was drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from m2rl_core.seeding import derive
from m2rl_core.types import Finish, Sampling, Turn

__all__ = ["GREETING", "PROBE", "SCORE", "params", "seed_of", "turn"]

SEEDS = 2**48
"""Seeds of a request's samples are consecutive, and must stay below 2⁶³."""
GREETING = [1, 2, 3]
"""A prompt for :data:`PROBE`; not the padding token alone, after which all tokens may be equally likely."""
PROBE: Mapping[str, Any] = {"max_tokens": 1, "top_k": 1, "seed": 1, "logprobs": 0, "detokenize": False}
"""A request whose log-prob is 0 where log-probs are of the distribution that was drawn from, and only there."""
SCORE: Mapping[str, Any] = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}
"""A request for the log-probs of the prompt."""


class Span(Protocol):
    """vLLM's ``WeightVersionSpan``: tokens ``start`` to ``end`` were drawn by ``version``."""

    version: str
    start: int
    end: int


def seed_of(sampling: Sampling, length: int) -> int:
    """Seed of sample 0 of a request with a context of ``length`` tokens; sample i has the i-th seed after it.

    vLLM begins a request's stream of random numbers anew, so a later turn of the same sample needs another seed.
    """
    return derive(sampling.seed, "vllm", length) % SEEDS


def params(sampling: Sampling, n: int, length: int, limit: int) -> dict[str, Any]:
    """``SamplingParams`` for ``n`` continuations of ``length`` tokens where contexts end at ``limit``.

    Greedy samples are all the same, and vLLM draws only one.
    """
    greedy = sampling.temperature == 0.0
    return {
        "n": 1 if greedy else n,
        "max_tokens": min(sampling.max_tokens, limit - length),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": None if greedy else seed_of(sampling, length) + sampling.sample,
        "stop_token_ids": list(sampling.stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "detokenize": False,
    }


def turn(ids: Iterable[int], logps: Iterable[float], spans: Sequence[tuple[str, int, int]], reason: str | None) -> Turn:
    """One drawn sample.

    Args:
        spans: (version, start, end) over the tokens, in order and without gaps.
        reason: vLLM's ``finish_reason``.

    Raises:
        ValueError: the parts are not of the same length.
    """
    drawn = Turn(list(ids), list(logps), [int(v) for v, start, end in spans for _ in range(start, end)], finish(reason))
    if not len(drawn.ids) == len(drawn.logps) == len(drawn.versions):
        raise ValueError(
            f"vLLM returned {len(drawn.ids)} tokens, {len(drawn.logps)} log-probs and {len(drawn.versions)} versions"
        )
    return drawn


def finish(reason: str | None) -> Finish:
    """``stop`` and ``length`` mean the same to both; all else is a sample that was given up."""
    return "stop" if reason == "stop" else "length" if reason == "length" else "abort"
