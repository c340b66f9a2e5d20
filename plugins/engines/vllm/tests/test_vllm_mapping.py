"""Requests, noise and answers, without vLLM."""

from __future__ import annotations

from dataclasses import replace

import pytest

from m2rl_core.types import Sampling, Turn
from m2rl_engine_vllm.mapping import params, seed_of, turn
from m2rl_engine_vllm.server import drawn


def test_a_request_says_what_sampling_says() -> None:
    sampling = Sampling(50, temperature=0.7, top_p=0.9, top_k=5, stop_ids=(3, 4), seed=11, sample=2)
    found = params(sampling, 8, length=30, limit=64)
    assert found.pop("seed") == seed_of(sampling, 30) + 2
    assert found == {
        "n": 8, "max_tokens": 34, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "stop_token_ids": [3, 4],
        "ignore_eos": True, "logprobs": 0, "detokenize": False,
    }  # fmt: skip
    assert params(sampling, 8, length=3, limit=64)["max_tokens"] == 50


def test_greedy_samples_are_drawn_once_and_without_noise() -> None:
    found = params(Sampling(5, temperature=0.0, seed=1), 4, 3, 64)
    assert (found["n"], found["seed"]) == (1, None)


def test_a_sample_has_the_same_seed_alone_and_in_a_group() -> None:
    sampling = Sampling(5, seed=7)
    group = params(sampling, 8, 3, 64)["seed"]  # vLLM gives sample i the seed plus i
    assert params(replace(sampling, sample=6), 1, 3, 64)["seed"] == group + 6


def test_seeds_differ_by_prompt_and_by_turn_and_fit_into_63_bits() -> None:
    seeds = {seed_of(Sampling(1, seed=seed), length) for seed in range(50) for length in range(1, 50)}
    assert len(seeds) == 50 * 49
    assert max(seeds) + 10**6 < 2**63


def test_spans_become_a_version_per_token() -> None:
    found = turn([5, 6, 7], [-0.1, -0.2, -0.3], [("3", 0, 1), ("4", 1, 3)], "stop")
    assert found == Turn([5, 6, 7], [-0.1, -0.2, -0.3], [3, 4, 4], "stop")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length"), ("abort", "abort"), ("error", "abort"), (None, "abort")],
)
def test_a_sample_without_an_end_was_given_up(reason: str | None, finish: str) -> None:
    assert turn([], [], [], reason).finish == finish


def test_an_answer_with_a_hole_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens, 2 log-probs and 1 versions"):
        turn([1, 2], [-1.0, -1.0], [("0", 0, 1)], "stop")


def test_a_servers_choice_becomes_a_turn() -> None:
    choice = {
        "index": 0,
        "finish_reason": "length",
        "token_ids": [4, 9],
        "logprobs": {"content": [{"token_id": 4, "logprob": -0.5}, {"token_id": 9, "logprob": -1.5}]},
        "weight_versions": [{"version": "12", "start": 0, "end": 2}],
    }
    assert drawn(choice) == Turn([4, 9], [-0.5, -1.5], [12, 12], "length")
    given_up = {"index": 1, "finish_reason": "abort", "token_ids": [], "logprobs": None, "weight_versions": None}
    assert drawn(given_up) == Turn([], [], [], "abort")
