"""Credit from the rewards of one group."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Sample

if TYPE_CHECKING:
    from torch import Tensor

Baseline = Literal["mean", "leave-one-out"]


class GroupAdvantage:
    """A = (r − baseline) / (std + 1e-6) over the group, the same for every token of a sample.

    The standard deviation is the unbiased one, as in the released code (paper silent). A group of equal rewards, and a
    group of one, gets exactly 0.
    """

    name: ClassVar[str] = "group"
    reference: ClassVar[str] = (
        "https://arxiv.org/abs/2402.03300 section 4.1.2; leave-one-out: https://arxiv.org/abs/2402.14740 (RLOO)"
    )
    needs: frozenset[str] = frozenset()

    class Config(ComponentConfig):
        std: bool = True
        """Divide by the group's standard deviation; ``false`` is Dr. GRPO (https://arxiv.org/abs/2503.20783)."""
        baseline: Baseline = "mean"
        """The mean of the whole group (GRPO), or of its other samples (RLOO, with ``std: false``)."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        import torch

        rewards_G = torch.tensor([s.reward.value for s in group], dtype=torch.float64)
        advantage_G = group_advantage(rewards_G, std=self.config.std, baseline=self.config.baseline)
        return [
            torch.full((len(s.ids_L),), a, dtype=torch.float32)
            for s, a in zip(group, advantage_G.tolist(), strict=True)
        ]


def group_advantage(rewards_G: Tensor, *, std: bool, baseline: Baseline) -> Tensor:
    """One advantage per sample [G] from their rewards [G]; all 0, exactly, where the rewards are equal."""
    if bool((rewards_G == rewards_G[0]).all()):
        return rewards_G.new_zeros(len(rewards_G))
    if baseline == "mean":
        advantage_G = rewards_G - rewards_G.mean()
    else:
        others_G = (rewards_G.sum() - rewards_G) / (len(rewards_G) - 1)
        advantage_G = rewards_G - others_G
    return advantage_G / (rewards_G.std() + 1e-6) if std else advantage_G
