"""GRPO's parts against hand cases and naive definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from m2rl_algorithm_grpo import Grpo
from m2rl_algorithm_grpo.advantages import GroupAdvantage
from m2rl_algorithm_grpo.losses import PpoClip
from m2rl_core.packing import pack
from m2rl_core.testing import AlgorithmContract
from m2rl_core.types import Batch, Composition, Reward, Sample

Make = Callable[..., Sample]


class TestGrpoContract(AlgorithmContract):
    advantage = GroupAdvantage(GroupAdvantage.Config())
    loss = PpoClip(PpoClip.Config())


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


@pytest.mark.parametrize("rewards", [[0.1] * 7, [1, 1], [0], [0.3, 0.3, 0.3]])
def test_equal_rewards_give_exactly_nothing(make_sample: Make, rewards: list[float]) -> None:
    assert first(GroupAdvantage.Config(), group(make_sample, rewards)) == [0.0] * len(rewards)


def batch_of(make: Make, advantage: float, old: list[float]) -> Batch:
    sample = make(3 + len(old), len(old))
    sample.advantage_L = torch.full((len(sample.ids_L),), advantage)
    sample.old_logps_L = torch.tensor([0.0] * 3 + old)
    [batch] = pack([sample], 16, torch.device("cpu"))
    return batch.take(torch.nonzero(batch.trained_T)[:, 0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "flows"),
    [
        (1.0, 2.0, -2.0, True),
        (1.5, 2.0, -2.56, False),  # above 1 + 0.28, with a positive advantage: clipped
        (1.5, -2.0, 3.0, True),  # above, with a negative one: not clipped
        (0.5, 2.0, -1.0, True),  # below 1 - 0.2, with a positive advantage: not clipped
        (0.5, -2.0, 1.6, False),
    ],
)
def test_clipping_by_hand(make_sample: Make, ratio: float, advantage: float, expected: float, flows: bool) -> None:
    batch = batch_of(make_sample, advantage, [-1.0])
    logps = torch.tensor([-1.0 + math.log(ratio)], requires_grad=True)
    loss = PpoClip(PpoClip.Config())(logps, batch)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    [gradient] = torch.autograd.grad(loss.sum(), logps)
    assert gradient.item() == pytest.approx(-ratio * advantage if flows else 0.0, rel=1e-6)


def test_on_policy_gradient_is_that_of_reinforce(make_sample: Make) -> None:
    batch = batch_of(make_sample, 0.7, [-1.0, -2.0, -0.1])
    assert batch.old_logps_T is not None
    logps = batch.old_logps_T.clone().requires_grad_()
    [gradient] = torch.autograd.grad(PpoClip(PpoClip.Config())(logps, batch).sum(), logps)
    torch.testing.assert_close(gradient, torch.full((3,), -0.7))


def test_the_algorithm_is_its_parts() -> None:
    algorithm = Grpo(Grpo.Config(advantage={"std": False}, loss={"high": 0.2}))
    assert algorithm.compose() == Composition(
        advantage={"use": "group", "std": False}, loss={"use": "ppo-clip", "high": 0.2}, reduction="sequence"
    )
