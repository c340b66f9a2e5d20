"""Group relative policy optimisation (Shao et al. 2024, section 4.1; the algorithm of the paper's section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Composition, Reduction

if TYPE_CHECKING:
    from m2rl_core.interfaces import Advantage, Algorithm, Loss

Part = dict[str, Any]


class Grpo:
    """Group-normalised advantages, a clipped importance ratio, no KL penalty."""

    name: ClassVar[str] = "grpo"
    reference: ClassVar[str] = "https://arxiv.org/abs/2402.03300 section 4.1; the paper's sections 3.1 and A"

    class Config(ComponentConfig):
        advantage: Part = {}
        """Changes to ``{use: group}``."""
        importance: Part | None = None
        """A correction for the difference between sampler and trainer; none by default."""
        loss: Part = {}
        """Changes to ``{use: ppo-clip}``."""
        reduction: Reduction = "sequence"
        """Mean over each sample's tokens, then over samples: paper silent, the released code's choice."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def compose(self) -> Composition:
        return Composition(
            advantage={"use": "group", **self.config.advantage},
            loss={"use": "ppo-clip", **self.config.loss},
            importance=self.config.importance,
            reduction=self.config.reduction,
        )


@hookimpl
def m2rl_algorithms() -> Iterable[type[Algorithm]]:
    return [Grpo]


@hookimpl
def m2rl_advantages() -> Iterable[type[Advantage]]:
    from m2rl_algorithm_grpo.advantages import GroupAdvantage

    return [GroupAdvantage]


@hookimpl
def m2rl_losses() -> Iterable[type[Loss]]:
    from m2rl_algorithm_grpo.losses import PpoClip

    return [PpoClip]
