"""From what a study says of an algorithm to its parts: the one place that reads a ``Composition``.

This module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from m2rl_core.errors import boundary
from m2rl_core.interfaces import Advantage, Importance, Loss
from m2rl_core.registry import Registry, Use
from m2rl_core.types import Composition, Reduction

__all__ = ["Components", "compose", "composed"]


@dataclass(frozen=True)
class Components:
    """The parts of an algorithm, built."""

    advantage: Advantage
    importance: Importance | None
    loss: Loss
    reduction: Reduction

    @property
    def taught(self) -> bool:
        """True where a part learns from a teacher: from its log-probs, or by a divergence from it."""
        parts = (self.advantage, self.importance, self.loss)
        scored = any("teacher_logps" in part.needs for part in parts if part is not None)
        return scored or self.distils

    @property
    def distils(self) -> bool:
        """True where the loss needs a divergence from a teacher over the whole vocabulary."""
        return getattr(self.loss, "divergence", None) is not None

    def scores(self, updates: int) -> frozenset[str]:
        """Per-token scores to be computed for every sample of a step with so many updates, before the first."""
        needs = self.advantage.needs | (self.importance.needs if self.importance else frozenset())
        # With one update per step the policy that is updated is still the one before the update: backward fills it in.
        needs |= self.loss.needs if updates > 1 else self.loss.needs - {"old_logps"}
        return needs - {"entropy"}


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
        ComponentError, ConfigError: the algorithm or a part is not there, or refuses its settings.
        StageError: a component's own code failed.
    """
    made = composed(registry, algorithm, owner)
    advantage = registry.create("advantage", made.advantage, f"{owner}.advantage")
    loss = registry.create("loss", made.loss, f"{owner}.loss")
    rule = made.importance
    importance = None if rule is None else registry.create("importance", rule, f"{owner}.importance")
    return Components(advantage, importance, loss, made.reduction)
