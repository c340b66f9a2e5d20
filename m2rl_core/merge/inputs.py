"""The anchor and the experts side by side, read piece by piece into buffers that each thread reuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from m2rl_core.types import Block
from m2rl_core.weights import LEAF, Checkpoint, Stored

Granularity = Literal["block", "rows", "tensor"]

GRAM = "gram"
"""The kind of evidence that has a shape of its own, and so comes whole or, for a tensor without one, not at all."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Which part of a tensor a block holds."""

    name: str
    offset: int
    """Index of the first element within the flattened tensor."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)


class Inputs:
    """Open checkpoints with the same tensors, as blocks.

    Args:
        base: the anchor, where the blocks shall have one.
        experts: by name, in the order of ``Block.experts_E``.
        names: tensors to visit, in this order.
        granularity: what a block is, see :class:`~m2rl_core.interfaces.Merger`.
        block: elements of a block; rows are taken whole, as many as fit, at least one.
        evidence: kind → float32 checkpoints with the weights' names, one per expert in their order.
    """

    def __init__(
        self,
        base: Checkpoint | None,
        experts: Mapping[str, Checkpoint],
        names: list[str],
        *,
        granularity: Granularity = "block",
        block: int = LEAF,
        evidence: Mapping[str, Sequence[Checkpoint]] | None = None,
    ) -> None:
        self.base = base
        self.experts = experts
        self.sources = ([] if base is None else [base]) + list(experts.values())
        self.tensors: Mapping[str, Stored] = {name: self.sources[-1].tensors[name] for name in names}
        self.granularity, self.block = granularity, block
        self.evidence = evidence or {}
        self.whole_leaves = granularity == "tensor" or (granularity == "block" and block % LEAF == 0)
        """True where every piece begins at a leaf of the weights' fingerprint."""
        self._local = threading.local()
        self._largest = max((p.size for name in names for p in self.pieces(name)), default=0)

    @property
    def bytes(self) -> int:
        """Read by one visit to every block."""
        return sum(tensor.size * self.itemsize(name) for name, tensor in self.tensors.items())

    def itemsize(self, name: str) -> int:
        """Bytes that all sources together store for one element of a tensor."""
        return sum(source.tensors[name].dtype.itemsize for source in self.sources)

    def pieces(self, name: str) -> Iterator[Piece]:
        """The blocks of a tensor, in order; none for an empty one."""
        shape, size = self.tensors[name].shape, self.tensors[name].size
        if self.granularity == "tensor" or (self.granularity == "rows" and len(shape) < 2):
            if size:
                yield Piece(name, 0, shape)
            return
        width = shape[-1] if self.granularity == "rows" else 1
        step = max(1, self.block // max(1, width)) * width
        for offset in range(0, size, step or 1):
            count = min(step, size - offset)
            yield Piece(name, offset, (count // width, width) if self.granularity == "rows" else (count,))

    def load(self, piece: Piece, visit: Callable[[int, memoryview], None] | None = None) -> Block:
        """Read a block. Its tensors are overwritten by this thread's next one.

        Args:
            piece: one of :meth:`pieces`.
            visit: is shown the stored bytes of each of :attr:`sources`, with its index there.
        """
        values, raw = self._buffers()
        side_by_side = values[: len(self.sources) * piece.size].view(len(self.sources), piece.size)
        for index, source in enumerate(self.sources):
            dtype = source.tensors[piece.name].dtype
            exact = dtype == torch.float32
            target = side_by_side[index] if exact else raw.view(dtype)[: piece.size]
            content = source.read(piece.name, piece.offset, target)
            if visit is not None:
                visit(index, content)
            if not exact:
                side_by_side[index].copy_(target)
        blocks = side_by_side.view(len(self.sources), *piece.shape)
        base, experts_E = (None, blocks) if self.base is None else (blocks[0], blocks[1:])
        return Block(
            piece.name, piece.offset, piece.shape, base, experts_E, tuple(self.experts), dict(self._evidence(piece))
        )

    def _evidence(self, piece: Piece) -> Iterator[tuple[str, Tensor]]:
        """(kind, one entry per expert) of what there is for a block's tensor."""
        for kind, sources in self.evidence.items():
            if kind != GRAM:
                yield kind, _side_by_side(sources, piece.name, piece.offset, piece.shape)
            elif piece.name in sources[0].tensors:
                yield kind, _side_by_side(sources, piece.name, 0, sources[0].tensors[piece.name].shape)

    def _buffers(self) -> tuple[Tensor, Tensor]:
        """This thread's float32 values of all sources, and room for one source's stored bytes."""
        if not hasattr(self._local, "buffers"):
            values = torch.empty(len(self.sources) * self._largest)
            self._local.buffers = values, torch.empty(2 * self._largest, dtype=torch.uint8)
        buffers: tuple[Tensor, Tensor] = self._local.buffers
        return buffers


def _side_by_side(sources: Sequence[Checkpoint], name: str, offset: int, shape: tuple[int, ...]) -> Tensor:
    """float32 [E, *shape]: a piece of each source's tensor."""
    found_E = torch.empty(len(sources), *shape)
    for source, values in zip(sources, found_E, strict=True):
        source.read(name, offset, values.view(-1))
    return found_E
