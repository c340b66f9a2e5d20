"""``Load``: what a training stage asks of each device, and the types of the numbers there."""

from __future__ import annotations

from dataclasses import dataclass

from m2rl_core.estimate.shape import Shape

__all__ = ["FLOAT32", "Load"]

FLOAT32 = 4
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a training stage asks of each device."""

    shape: Shape
    tokens: int
    """Of the largest packed batch; all of them count as trained."""
    devices: int = 1
    cpu: bool = False
    """True where the ops run as on a CPU, with smaller chunks than on a GPU."""
    dtype: str = "bfloat16"
    """Of the products."""
    checkpointing: bool = False
    offload: bool = False
    """AdamW's moments are elsewhere but for a piece of one parameter."""
    row: int = 0
    """Columns of a row where attention is dense over it; 0 where sequences keep to themselves without a mask."""
    separable: bool = True
    """The loss is token by token."""
    frozen: Shape | None = None
    """The largest teacher or reference, one of which is there at a time."""
    lectured: bool = False
    """The loss holds a divergence from the frozen model: every batch's backward pass begins with a lecture."""
    engine: float = 0
    """The engine's weights [bytes]."""
    cache: float = 0
    """Its keys and values [bytes]."""

    @property
    def size(self) -> int:
        """Bytes of a number in the type of the products."""
        return FLOAT32 if self.dtype == "float32" else 2

    @property
    def autocast(self) -> bool:
        return self.devices == 1 and self.size < FLOAT32

    @property
    def cast(self) -> int:
        """Bytes of a number that is copied before a product; 0 where numbers have the type of the products already."""
        return self.size if self.autocast else 0

    @property
    def residual(self) -> int:
        """Bytes of a number between layers: FSDP2 casts the embedding, autocast does not."""
        return FLOAT32 if self.autocast else self.size

    @property
    def gradient(self) -> int:
        """Bytes of a number of the head's gradient once the head's backward pass has handed it on."""
        return self.residual
