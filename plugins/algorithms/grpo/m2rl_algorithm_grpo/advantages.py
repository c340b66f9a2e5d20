"""Credit from the rewards of one group."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Sample

if TYPE_CHECKING:
    from torch import Tensor


class GroupAdvantage:
    """A = (r − mean) / (std + 1e-6) over the group, the same for every token of a sample.

    The standard deviation is the unbiased one, as in the released code (paper silent). A group of equal rewards, and a
    group of one, gets exactly 0.
    """

    name: ClassVar[str] = "group"
    reference: ClassVar[str] = "https://arxiv.org/abs/2402.03300 section 4.1.2"
    needs: frozenset[str] = frozenset()

    class Config(ComponentConfig):
        std: bool = True
        """Divide by the group's standard deviation; ``false`` is Dr. GRPO (https://arxiv.org/abs/2503.20783)."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        import torch

        rewards_G = torch.tensor([s.reward.value for s in group], dtype=torch.float64)
        advantage_G = rewards_G - rewards_G.mean()
        if bool((rewards_G == rewards_G[0]).all()):
            advantage_G.zero_()
        elif self.config.std:
            advantage_G /= rewards_G.std() + 1e-6
        return [
            torch.full((len(s.ids_L),), a, dtype=torch.float32)
            for s, a in zip(group, advantage_G.tolist(), strict=True)
        ]
