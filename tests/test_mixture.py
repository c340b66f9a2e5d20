"""Quotas that are exact, orders that do not depend on history, states that resume."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from m2rl_core.errors import ConfigError, DataError
from m2rl_core.rollout.mixture import Source
from m2rl_core.rollout.shares import Fixed
from m2rl_core.types import Group, Prompt, Reward, Sample, Trajectory


def prompts(domain: str, count: int) -> list[Prompt]:
    return [Prompt(f"{domain}-{i}", domain, ({"role": "user", "content": str(i)},)) for i in range(count)]


def source(shares: dict[str, float], count: int, sizes: dict[str, int] | None = None, seed: int = 5) -> Source:
    found = {d: prompts(d, (sizes or {}).get(d, 1000)) for d in shares}
    return Source(found, Fixed(Fixed.Config(shares=shares)), count, seed)


@pytest.mark.parametrize("count", [1, 7, 16, 128])
def test_quotas_are_exact_at_every_step(count: int) -> None:
    shares = {
        "math": 25.1,
        "coding": 21.9,
        "science": 22.4,
        "if": 18.9,
        "agent": 11.7,
    }  # the paper's mixture, in percent
    mixed, drawn = source(shares, count), dict.fromkeys(shares, 0)
    for step in range(100):
        taken = mixed.next(step)
        assert len(taken) == count
        for prompt in taken:
            drawn[prompt.domain] += 1
        for domain, share in shares.items():
            assert abs(drawn[domain] - share / 100 * count * (step + 1)) < 1.001


@pytest.mark.parametrize("seed", range(20))
def test_any_shares_are_dealt_exactly(seed: int) -> None:
    draw = random.Random(seed)
    shares = {f"d{i}": draw.choice([0.01, 0.1, 1.0, 2.0, draw.random()]) for i in range(draw.randint(2, 6))}
    count, drawn = draw.randint(1, 9), dict.fromkeys(shares, 0)
    mixed = source(shares, count)
    for step in range(60):
        taken = mixed.next(step)
        assert len(taken) == count
        for prompt in taken:
            drawn[prompt.domain] += 1
        for domain, share in shares.items():
            assert abs(drawn[domain] - share / sum(shares.values()) * count * (step + 1)) <= 1 + 1e-9


@pytest.mark.parametrize("weights", [{"math": 1.0}, {"math": 1.0, "science": -1.0}, {"math": 0.0, "science": 0.0}])
def test_impossible_weights_are_refused(weights: dict[str, float]) -> None:
    found = {d: prompts(d, 9) for d in ("math", "science")}
    with pytest.raises(ConfigError, match="mixture 'fixed'"):
        Source(found, Fixed(Fixed.Config(shares=weights)), 4, 0).next(0)


def test_shares_that_divide_evenly_are_met_in_every_step() -> None:
    mixed = source({"math": 1, "science": 3}, 16)
    for step in range(10):
        assert [p.domain for p in mixed.next(step)] == ["math"] * 4 + ["science"] * 12


def test_an_epoch_draws_every_prompt_once_and_each_epoch_in_another_order() -> None:
    one = source({"math": 1}, 10, {"math": 50})
    epochs = [[p.id for step in range(5) for p in one.next(step)] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(p.id for p in prompts("math", 50))
    assert epochs[0] != epochs[1]


def test_a_domain_is_drawn_in_the_same_order_whoever_is_beside_it() -> None:
    alone, beside = source({"math": 1}, 4), source({"math": 1, "science": 1}, 8)
    for step in range(5):
        expected = [p.id for p in alone.next(step)]
        assert [p.id for p in beside.next(step) if p.domain == "math"] == expected


def test_a_saved_source_continues_exactly(tmp_path: Path) -> None:
    shares = {"math": 0.3, "science": 0.7}
    whole, first = source(shares, 7), source(shares, 7)
    expected = [[p.id for p in whole.next(step)] for step in range(12)]
    for step in range(5):
        first.next(step)
    first.save_state(tmp_path)
    second = source(shares, 7)
    second.load_state(tmp_path)
    assert [[p.id for p in second.next(step)] for step in range(5, 12)] == expected[5:]


def test_adaptive_mixtures_see_running_rewards() -> None:
    class Worst(Fixed):
        def weights(self, step: int, sizes: object, rewards: object) -> dict[str, float]:
            assert isinstance(rewards, dict)
            return {d: 1.0 - rewards.get(d, 0.0) for d in ("math", "science")}

    mixed = Source({d: prompts(d, 100) for d in ("math", "science")}, Worst(Fixed.Config(shares={})), 10, 1)
    prompt = prompts("math", 1)[0]
    sample = Sample(prompt, 0, [], [], [], [], Trajectory(prompt, (), ""), "stop", Reward(1.0))
    mixed.observe([Group(prompt, [sample])])
    assert mixed.rewards == {"math": 1.0}
    assert {p.domain for p in mixed.next(0)} == {"science"}


def test_a_domain_without_prompts_is_refused() -> None:
    with pytest.raises(DataError, match="'science' has no training prompts"):
        source({"math": 1, "science": 1}, 4, {"science": 0})
