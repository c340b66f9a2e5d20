"""The groups of one step: what the source asks for, and new prompts for groups that carry no signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from m2rl_core.config import RlStage
from m2rl_core.rollout.mixture import Source
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive
from m2rl_core.types import Group, Prompt, Sampling

__all__ = ["Draws", "collect", "gather", "sampling"]


class Draws(Protocol):
    """A :class:`~m2rl_core.rollout.episodes.Sampler`, in this process or another."""

    def rollout(self, prompts_P: Sequence[Prompt], sampling: Sampling, n: int) -> list[Group]: ...


def collect(run: StageRun[RlStage], sampler: Draws, source: Source, step: int) -> list[Group]:
    """Sample and verify the prompts of ``step``.

    With ``refill`` (DAPO's dynamic sampling, https://arxiv.org/abs/2503.14476 section 3.2), groups whose rewards are
    all equal are dropped and a new prompt of the same domain is drawn for each, up to so many times; whatever has no
    signal then stays. Dropped groups are returned too, marked, so that they are counted and recorded.
    """
    return gather(run, sampler, source, source.next(step), step)


def gather(
    run: StageRun[RlStage], sampler: Draws, source: Source, prompts_P: Sequence[Prompt], step: int
) -> list[Group]:
    """As :func:`collect`, from the prompts that ``step`` begins with. Of the source only ``draw`` is used."""
    stage = run.stage
    groups_P = sampler.rollout(prompts_P, sampling(run, step), stage.group)
    latest = groups_P
    for attempt in range(1, stage.refill + 1):
        idle = [group for group in latest if group.zero_variance]
        if not idle:
            break
        prompts = [source.draw(group.prompt.domain) for group in idle]
        latest = sampler.rollout(prompts, sampling(run, step, attempt), stage.group)
        for group in idle:
            group.dropped = True
        groups_P = groups_P + latest
    return groups_P


def sampling(run: StageRun[RlStage], step: int, attempt: int = 0) -> Sampling:
    """How the tokens of a step's ``attempt`` are drawn."""
    stage = run.stage
    seed = derive(run.seed, "rollout", step, *([attempt] if attempt else []))
    return Sampling(stage.max_tokens, stage.temperature, stage.top_p, seed=seed)
