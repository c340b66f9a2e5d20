"""From what a study says of an algorithm to its parts: the one place that reads a ``Composition``.

This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, cast

from m2rl_core.errors import ConfigError, boundary
from m2rl_core.interfaces import Advantage, ComponentConfig, Importance, Loss
from m2rl_core.registry import Registry, Use, use_of
from m2rl_core.types import Batch, Composition, Divergence, Reduction, Sample

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Components", "compose", "composed", "terms"]


KNOWN = frozenset({"old_logps", "reference_logps", "teacher_logps", "entropy"})
"""What parts may need."""


@dataclass(frozen=True)
class Components:
    """The parts of an algorithm, built."""

    advantage: Advantage
    importance: Importance | None
    loss: Loss
    reduction: Reduction

    @property
    def needs(self) -> frozenset[str]:
        """What any part needs."""
        return self.advantage.needs | self.loss.needs | (self.importance.needs if self.importance else frozenset())

    @property
    def taught(self) -> bool:
        """True where a part learns from a teacher: from its log-probs, or by a divergence from it."""
        return "teacher_logps" in self.needs or self.distils

    @property
    def distils(self) -> bool:
        """True where the loss needs a divergence from a teacher over the whole vocabulary."""
        return self.loss.divergence is not None

    @property
    def leaves(self) -> list[object]:
        """The parts, those of sums one by one."""
        parts = (self.advantage, self.importance, self.loss)
        sums = (part.parts if isinstance(part, SumAdvantage | SumLoss) else [(1.0, part)] for part in parts)
        return [leaf for found in sums for _, leaf in found]

    def scores(self, updates: int) -> frozenset[str]:
        """Log-probs to be computed for every sample of a step with so many updates, before the first."""
        rule = self.importance
        first, later = self.advantage.needs, self.loss.needs
        if rule is not None:
            first, later = (first, later | rule.needs) if rule.separable else (first | rule.needs, later)
        # With one update per step the policy that is updated is still the one before the update: backward fills it in.
        return (first | (later if updates > 1 else later - {"old_logps"})) - {"entropy"}


class SumAdvantage:
    """Weighted sum of advantages; nothing where there are none."""

    reference: ClassVar[str] = "m2rl_core.types.Composition"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, parts: Sequence[tuple[float, Advantage]]) -> None:
        self.parts = parts
        self.name = " + ".join(part.name for _, part in parts) or "none"
        self.needs = frozenset[str]().union(*(part.needs for _, part in parts))

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        import torch

        total = [torch.zeros(len(sample.ids_L)) for sample in group]
        for weight, part in self.parts:
            total = [sum_L + weight * value_L for sum_L, value_L in zip(total, part(group), strict=True)]
        return total


class SumLoss:
    """Weighted sum of losses.

    Raises:
        ValueError: two divergences, or a divergence beside a loss of whole sequences.
    """

    reference: ClassVar[str] = "m2rl_core.types.Composition"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, parts: Sequence[tuple[float, Loss]]) -> None:
        losses = [loss for _, loss in parts]
        self.parts = parts
        self.name = " + ".join(loss.name for loss in losses)
        self.separable = all(loss.separable for loss in losses)
        self.vanishes = all(loss.vanishes for loss in losses)
        self.needs = frozenset[str]().union(*(loss.needs for loss in losses))
        found = [loss.divergence for loss in losses if loss.divergence is not None]
        if len(found) > 1:
            raise ValueError(f"{self.name}: at most one loss may have a divergence from the teacher")
        if found and not self.separable:
            raise ValueError(
                f"{self.name}: a divergence is fused token by token, and a loss here needs whole sequences"
            )
        self.divergence: Divergence | None = found[0] if found else None

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        import torch

        return torch.stack([weight * loss(logps, batch) for weight, loss in self.parts]).sum(0)


def terms(
    part: Mapping[str, Any] | Sequence[Mapping[str, Any]], owner: str = "algorithm"
) -> Iterator[tuple[float, dict[str, Any]]]:
    """(weight, ``{use: NAME, **config}``) of one part or of several that are added up.

    Raises:
        ConfigError: a weight, below ``owner``, that is no finite number above 0.
    """
    for one in [part] if isinstance(part, Mapping) else part:
        weight = one.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 < weight < inf:
            raise ConfigError(f"{owner}.weight: of '{one.get('use')}'", found=weight, allowed="a finite number above 0")
        yield float(weight), {key: value for key, value in one.items() if key != "weight"}


def composed(registry: Registry, algorithm: Use, owner: str) -> Composition:
    """What an algorithm says that it is made of; see :func:`compose`."""
    built = registry.create("algorithm", algorithm, owner)
    with boundary(f"{owner}: algorithm '{built.name}'", "naming its parts"):
        return built.compose()


def compose(registry: Registry, algorithm: Use, owner: str) -> Components:
    """Build an algorithm's parts.

    Args:
        algorithm: a name, or ``{use: NAME, **config}``.
        owner: dotted path of ``algorithm`` in the study, for messages; parts are named below it.

    Raises:
        ComponentError, ConfigError: the algorithm or a part is not there, refuses its settings, or fits no other part.
        StageError: a component's own code failed.
    """
    made = composed(registry, algorithm, owner)
    place = {kind: f"{owner}.{kind}" for kind in ("advantage", "loss")}
    advantages = [
        (weight, registry.create("advantage", use, place["advantage"]))
        for weight, use in terms(made.advantage, place["advantage"])
    ]
    losses = [(weight, registry.create("loss", use, place["loss"])) for weight, use in terms(made.loss, place["loss"])]
    rule = made.importance
    importance = None if rule is None else registry.create("importance", rule, f"{owner}.importance")
    if not losses:
        raise ConfigError(f"{owner}.loss: algorithm '{use_of(algorithm)[0]}' names no loss")
    try:
        advantage = advantages[0][1] if _plain(advantages) else cast("Advantage", SumAdvantage(advantages))
        loss = losses[0][1] if _plain(losses) else cast("Loss", SumLoss(losses))
    except ValueError as error:
        raise ConfigError(f"{owner}.loss: {error}") from error
    components = Components(advantage, importance, loss, made.reduction)
    if unknown := components.needs - KNOWN:
        raise ConfigError(
            f"{owner}: a part needs what nobody computes", found=", ".join(sorted(unknown)), allowed=sorted(KNOWN)
        )
    return components


def _plain(parts: Sequence[tuple[float, object]]) -> bool:
    """One part with its own weight needs no sum."""
    return len(parts) == 1 and parts[0][0] == 1.0
