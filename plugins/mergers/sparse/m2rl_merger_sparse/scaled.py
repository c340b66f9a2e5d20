"""Settings that mergers of whole task vectors share: a factor for each expert, and one for their sum."""

from __future__ import annotations

from collections.abc import Sequence

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.mergers.each_expert import numbers_E


class Scaled(ComponentConfig):
    scale: float = 1.0
    """λ, a factor for the merged task vector."""
    weights: list[float] | None = None
    """A factor for each expert's task vector, in their order. Default: 1 each."""

    def weights_E(self, experts: int) -> Sequence[float]:
        """One factor for each of so many experts.

        Raises:
            ValueError: the settings name another number of them.
        """
        return numbers_E(1.0 if self.weights is None else self.weights, experts, "weights")
