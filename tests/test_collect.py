"""The groups of a step, and new prompts for those without a signal."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from m2rl_core.rollout.collect import collect
from m2rl_core.rollout.mixture import Source
from m2rl_core.rollout.records import summarise
from m2rl_core.rollout.shares import Fixed
from m2rl_core.types import Group, Prompt, Reward, Sample, Sampling, Trajectory

SHARES = {"easy": 1.0, "mixed": 1.0}


class Judge:
    """Samples whose rewards depend on the prompt alone: all right for ``easy`` prompts but every fourth."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def rollout(self, prompts: Sequence[Prompt], sampling: Sampling, n: int) -> list[Group]:
        self.seeds.append(sampling.seed)
        return [Group(prompt, [sample(prompt, i) for i in range(n)]) for prompt in prompts]


def sample(prompt: Prompt, index: int) -> Sample:
    right = index == 0 or (prompt.domain == "easy" and prompt.ground_truth % 4 > 0)
    trajectory = Trajectory(prompt, (), "")
    return Sample(prompt, index, [1, 2], [False, True], [0.0, -1.0], [-1, 0], trajectory, "stop", Reward(float(right)))


def drawn(refill: int, step: int = 0) -> tuple[list[Group], Judge, Source]:
    prompts = {d: [Prompt(f"{d}-{i}", d, (), i) for i in range(100)] for d in SHARES}
    source, judge = Source(prompts, Fixed(Fixed.Config(shares=SHARES)), 8, seed=3), Judge()
    stage = SimpleNamespace(refill=refill, group=4, max_tokens=9, temperature=1.0, top_p=1.0)
    run: Any = SimpleNamespace(stage=stage, seed=5)
    return collect(run, judge, source, step), judge, source  # type: ignore[arg-type]


def test_without_refill_every_group_stays() -> None:
    groups, judge, _ = drawn(0)
    assert len(groups) == 8
    assert not any(group.dropped for group in groups)
    assert len(judge.seeds) == 1


def test_groups_without_a_signal_are_replaced_within_their_domain() -> None:
    groups, judge, source = drawn(50)
    kept = [group for group in groups if not group.dropped]
    assert [sum(g.prompt.domain == d for g in kept) for d in SHARES] == [4, 4]
    assert not any(group.zero_variance for group in kept)
    assert all(group.zero_variance and group.prompt.domain == "easy" for group in groups if group.dropped)
    assert len({group.prompt.id for group in groups}) == len(groups), "every prompt is a new one"
    assert len(set(judge.seeds)) == len(judge.seeds)
    assert source.owed == {"easy": 0, "mixed": 0}, "refilling takes nothing from the quotas"


def test_refilling_ends() -> None:
    once = drawn(1)[0]
    kept = [group for group in once if not group.dropped]
    assert len(kept) == 8
    assert any(group.zero_variance for group in kept), "what has no signal after the last attempt stays"


def test_dropped_groups_are_counted_per_domain() -> None:
    groups, _, _ = drawn(50)
    metrics = summarise(groups)
    dropped = sum(group.dropped for group in groups)
    assert dropped > 0
    assert metrics["dropped"] == metrics["dropped/easy"] == dropped
    assert metrics["dropped/mixed"] == 0
    assert metrics["zero_variance/easy"] == dropped / (dropped + 4)
    assert metrics["samples"] == 4 * len(groups)
