"""Advantages against hand cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest

from m2rl_algorithm_grpo.advantages import GroupAdvantage
from m2rl_core.types import Reward, Sample

Make = Callable[..., Sample]
CONFIGS = [
    GroupAdvantage.Config(std=std, baseline=baseline)
    for std, baseline in product((True, False), ("mean", "leave-one-out"))
]


def group(make: Make, rewards: list[float]) -> list[Sample]:
    samples = [make(6, 3, i) for i in range(len(rewards))]
    for sample, reward in zip(samples, rewards, strict=True):
        sample.reward = Reward(reward)
    return samples


def first(config: GroupAdvantage.Config, samples: list[Sample]) -> list[float]:
    return [a[0].item() for a in GroupAdvantage(config)(samples)]


def test_advantage_by_hand(make_sample: Make) -> None:
    # rewards 1 0 0 1: mean 1/2, unbiased std sqrt(1/3)
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    found = first(GroupAdvantage.Config(), group(make_sample, [1, 0, 0, 1]))
    assert found == pytest.approx([expected, -expected, -expected, expected], rel=1e-6)


def test_advantage_without_std_is_dr_grpo(make_sample: Make) -> None:
    found = first(GroupAdvantage.Config(std=False), group(make_sample, [1, 0, 0, 0]))
    assert found == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_leave_one_out_by_hand(make_sample: Make) -> None:
    # the others' means of 1, 1/2, 0, 0: 1/6, 1/3, 1/2, 1/2
    config = GroupAdvantage.Config(std=False, baseline="leave-one-out")
    assert first(config, group(make_sample, [1, 0.5, 0, 0])) == pytest.approx([5 / 6, 1 / 6, -1 / 2, -1 / 2])


def test_leave_one_out_may_be_divided_by_the_std(make_sample: Make) -> None:
    # rewards 1 0: the other's reward is the baseline; unbiased std sqrt(1/2)
    config = GroupAdvantage.Config(baseline="leave-one-out")
    assert first(config, group(make_sample, [1, 0])) == pytest.approx([math.sqrt(2), -math.sqrt(2)], rel=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("rewards", [[0.1] * 7, [1, 1], [0], [1], [0.3, 0.3, 0.3]])
def test_equal_rewards_give_exactly_nothing(
    make_sample: Make, rewards: list[float], config: GroupAdvantage.Config
) -> None:
    assert first(config, group(make_sample, rewards)) == [0.0] * len(rewards)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_token_of_a_sample_gets_its_advantage(make_sample: Make, config: GroupAdvantage.Config) -> None:
    for value_L in GroupAdvantage(config)(group(make_sample, [1, 0, 0.25])):
        assert bool((value_L == value_L[0]).all())
