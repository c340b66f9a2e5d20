"""Policy losses per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Batch, Divergence

if TYPE_CHECKING:
    from torch import Tensor


class PpoClip:
    """max(−ρA, −clip(ρ, 1 − low, 1 + high)·A) with ρ = π_θ / π_old, token by token.

    With one update per step ρ is 1 and the clip inert; the gradient is then that of −A · log π_θ.
    """

    name: ClassVar[str] = "ppo-clip"
    reference: ClassVar[str] = (
        "https://arxiv.org/abs/1707.06347 equation 7; clip-higher: https://arxiv.org/abs/2503.14476"
    )
    separable = True
    vanishes = True
    needs: frozenset[str] = frozenset({"old_logps"})
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        low: float = Field(default=0.2, ge=0.0, lt=1.0)
        """Paper silent; the released code's value."""
        high: float = Field(default=0.28, ge=0.0)
        """Paper silent; the released code's value."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        import torch

        assert batch.advantage_T is not None
        assert batch.old_logps_T is not None
        ratio = (logps - batch.old_logps_T).exp()
        clipped = ratio.clamp(1.0 - self.config.low, 1.0 + self.config.high)
        return torch.maximum(-ratio * batch.advantage_T, -clipped * batch.advantage_T)
