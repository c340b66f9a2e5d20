"""MagMax: each entry of the merged task vector is that of the expert which moved it the most, ``b + λ δ_argmax|δ|``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from m2rl_core.interfaces import ComponentConfig, Merger
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor


class MagMax(Merger):
    """Element by element, so that any block will do."""

    name: ClassVar[str] = "magmax"
    reference: ClassVar[str] = "https://arxiv.org/abs/2407.06322"
    granularity = "block"
    needs_base = True

    class Config(ComponentConfig):
        scale: float = 1.0
        """λ, a factor for the merged task vector."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Among equal magnitudes the later expert's entry counts."""
        import torch

        first, *others = block.deltas_E
        for delta in others:
            first = torch.where(delta.abs() >= first.abs(), delta, first)
        return [(first * self.config.scale).add_(block.anchor)]
