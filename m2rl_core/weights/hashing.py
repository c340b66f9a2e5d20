"""A hash of weights alone: names, types, shapes and values, however they are sharded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import torch

from m2rl_core.weights.checkpoint import Checkpoint, Stored

LEAF = 1 << 18
"""Elements that one leaf of a tensor's hash covers; a reader that visits whole leaves hashes on the way."""


class WeightsHash:
    """The hash of one checkpoint, gathered while its tensors are read, whatever their order.

    A tensor's hash is the sha256 of its leaves' sha256, :data:`LEAF` elements each, so that threads can share the work.
    """

    def __init__(self, tensors: Mapping[str, Stored]) -> None:
        self._tensors = {name: (tensor, hashlib.sha256()) for name, tensor in sorted(tensors.items())}

    def add(self, name: str, digests: Iterable[bytes]) -> None:
        """The next leaves of a tensor, in order."""
        self._tensors[name][1].update(b"".join(digests))

    def hexdigest(self) -> str:
        total = hashlib.sha256()
        for name, (tensor, found) in self._tensors.items():
            total.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode() + found.digest())
        return total.hexdigest()


def leaves(raw: memoryview, itemsize: int) -> list[bytes]:
    """The leaves' hashes of a piece that begins where a leaf begins."""
    step = LEAF * itemsize
    return [hashlib.sha256(raw[start : start + step]).digest() for start in range(0, len(raw), step)]


def weights_hash(folder: Path, threads: int = 1) -> str:
    """The :class:`WeightsHash` of a model folder [hex], read with ``threads`` threads.

    Raises:
        DataError: as :meth:`Checkpoint.open`.
    """
    with Checkpoint.open(folder) as checkpoint, ThreadPoolExecutor(threads) as pool:
        found = WeightsHash(checkpoint.tensors)

        def digests(tensor: Stored, offset: int) -> list[bytes]:
            piece = torch.empty(min(LEAF, tensor.size - offset), dtype=tensor.dtype)
            return leaves(checkpoint.read(tensor.name, offset, piece), tensor.dtype.itemsize)

        for name, tensor in checkpoint.tensors.items():
            for piece in pool.map(digests, repeat(tensor), range(0, tensor.size, LEAF)):
                found.add(name, piece)
        return found.hexdigest()
