"""Weights in memory that two processes share: one writes them, then the other reads them where they lie."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Place", "SharedWeights"]

ALIGN = 64
"""Bytes that each tensor's place is a multiple of."""


class Place(NamedTuple):
    """Where a tensor lies."""

    name: str
    dtype: str
    """As torch names it: ``float32``."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the beginning."""


class SharedWeights:
    """A file without a name, in memory where the system has such: it is gone with the last process that holds it.

    Nobody may read while somebody writes; the owners see to that.

    Args:
        handle: file descriptor of another process's, inherited; by default a new file.
    """

    def __init__(self, handle: int | None = None) -> None:
        self._file = _unnamed() if handle is None else os.fdopen(handle, "rb+")

    @property
    def handle(self) -> int:
        """File descriptor, for a child to inherit."""
        return self._file.fileno()

    def write(self, tensors: Iterable[tuple[str, Tensor]]) -> list[Place]:
        """Overwrite what is there, with one tensor at a time in this process's own memory.

        Raises:
            OSError: too little memory.
        """
        import torch

        places, end = list[Place](), 0
        for name, tensor in tensors:
            start = -(-end // ALIGN) * ALIGN
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            self._file.seek(start)
            self._file.write(flat.view(torch.uint8).numpy().data)
            end = start + flat.nbytes
            places.append(Place(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), start))
        self._file.flush()
        return places

    def read(self, places: Iterable[Place]) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) at the places; the tensors are the shared memory itself, so copy what shall stay."""
        import torch

        memory = mmap.mmap(self.handle, 0)
        for place in places:
            dtype, count = getattr(torch, place.dtype), torch.Size(place.shape).numel()
            flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=place.offset)
            yield place.name, flat.view(place.shape)

    def close(self) -> None:
        self._file.close()


def _unnamed() -> BinaryIO:
    if hasattr(os, "memfd_create"):  # unlike /dev/shm, not limited by what a container mounts there
        return os.fdopen(os.memfd_create("m2rl-weights"), "rb+")
    return tempfile.TemporaryFile()
