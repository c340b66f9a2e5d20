"""Group relative policy optimisation (Shao et al. 2024, section 4.1; the algorithm of the paper's section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

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


def _shape(value: object) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Parts = Annotated[Annotated[Part, Tag("one")] | Annotated[list[Part], Tag("several")], Discriminator(_shape)]
"""One part, or several that are added up, each times the ``weight`` beside its ``use``."""


class Grpo:
    """Group-normalised advantages and a clipped importance ratio; no KL penalty unless asked for."""

    name: ClassVar[str] = "grpo"
    reference: ClassVar[str] = "https://arxiv.org/abs/2402.03300 section 4.1; the paper's sections 3.1 and A"

    class Config(ComponentConfig):
        advantage: Parts = {}
        """Changes to ``{use: group}``; a part that names another ``use`` takes its place, as do several parts."""
        importance: Part | None = None
        """A correction for the difference between sampler and trainer; none by default."""
        loss: Parts = {}
        """Changes to ``{use: ppo-clip}``; a part that names another ``use`` takes its place, as do several parts."""
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
        loss = _changed("ppo-clip", config.loss)
        if config.kl:
            penalty = {"use": "reference-kl", "weight": config.kl, "estimator": config.kl_estimator}
            loss = [*(loss if isinstance(loss, list) else [loss]), penalty]
        return Composition(
            advantage=_changed("group", config.advantage),
            loss=loss,
            importance=config.importance,
            reduction=config.reduction,
        )


def _changed(default: str, parts: dict[str, Any] | list[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    return parts if isinstance(parts, list) else {"use": default, **parts}


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
