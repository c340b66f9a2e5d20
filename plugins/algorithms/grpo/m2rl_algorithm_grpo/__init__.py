"""Group relative policy optimisation (Shao et al. 2024, section 4.1; the algorithm of the paper's section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Composition, Reduction

if TYPE_CHECKING:
    from m2rl_core.interfaces import Advantage, Algorithm, Loss


def _by_name(part: object) -> object:
    """A bare name stands for the part of that name with its defaults."""
    return {"use": part} if isinstance(part, str) else part


Part = Annotated[dict[str, Any], BeforeValidator(_by_name)]
"""``{use: NAME, **settings}``, or just ``NAME``."""


class Grpo:
    """Group-normalised advantages and a clipped importance ratio; no KL penalty unless asked for."""

    name: ClassVar[str] = "grpo"
    reference: ClassVar[str] = "https://arxiv.org/abs/2402.03300 section 4.1; the paper's sections 3.1 and A"

    class Config(ComponentConfig):
        advantage: Part = {}
        """Changes to ``{use: group}``; a part that names another ``use`` takes its place."""
        importance: Part | None = None
        """A correction for the difference between sampler and trainer; none by default."""
        loss: Part = {}
        """Changes to ``{use: ppo-clip}``; a part that names another ``use`` takes its place."""
        reduction: Reduction = "sequence"
        """Mean over each sample's tokens, then over samples: paper silent, the released code's choice."""
        kl: float = Field(default=0.0, ge=0.0)
        """Weight of a KL penalty to the reference model. 0 is the paper's, and computes no reference log-probs."""
        kl_estimator: Literal["k1", "k2", "k3"] = "k3"
        """See the loss ``reference-kl``; k3 is GRPO's."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def compose(self) -> Composition:
        config = self.config
        policy = {"use": "ppo-clip", **config.loss}
        penalty = {"use": "reference-kl", "weight": config.kl, "estimator": config.kl_estimator}
        return Composition(
            advantage={"use": "group", **config.advantage},
            loss=[policy, penalty] if config.kl else policy,
            importance=config.importance,
            reduction=config.reduction,
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
    from m2rl_algorithm_grpo.losses import Cispo, Gspo, PpoClip, ReferenceKl, Sapo

    return [PpoClip, Gspo, Cispo, Sapo, ReferenceKl]
