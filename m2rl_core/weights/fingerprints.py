"""A fingerprint of weights alone: names, types, shapes and values, however they are sharded.

It tells checkpoints apart and finds damage; it does not stand up to forgery. Leaves are CRC-32, since a cryptographic
hash of every byte would cost more than merging does; :func:`m2rl_core.files.content_hash` is one, of a whole folder.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import torch

from m2rl_core.weights.checkpoint import Checkpoint, Stored

LEAF = 1 << 18
"""Elements that one leaf covers; a reader that visits whole leaves gets the fingerprint on its way."""


class Fingerprint:
    """The fingerprint of one checkpoint, gathered while its tensors are read, in any order of tensors.

    A tensor's is the sha256 of its leaves' CRC-32, so that threads can share the work.
    """

    def __init__(self, tensors: Mapping[str, Stored]) -> None:
        self._tensors = {name: (tensor, hashlib.sha256()) for name, tensor in sorted(tensors.items())}

    def add(self, name: str, leaves: Iterable[int]) -> None:
        """The next leaves of a tensor, in order."""
        self._tensors[name][1].update(b"".join(leaf.to_bytes(4, "little") for leaf in leaves))

    def hexdigest(self) -> str:
        total = hashlib.sha256()
        for name, (tensor, found) in self._tensors.items():
            total.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode() + found.digest())
        return total.hexdigest()


def leaves(raw: memoryview, itemsize: int) -> list[int]:
    """CRC-32 of the leaves of a piece that begins where a leaf begins."""
    step = LEAF * itemsize
    return [zlib.crc32(raw[start : start + step]) for start in range(0, len(raw), step)]


def fingerprint(folder: Path, threads: int = 1) -> str:
    """The :class:`Fingerprint` of a model folder, 64 hexadecimal digits, read with ``threads`` threads.

    Raises:
        DataError: as :meth:`Checkpoint.open`.
    """
    with Checkpoint.open(folder) as checkpoint, ThreadPoolExecutor(threads) as pool:
        found = Fingerprint(checkpoint.tensors)

        def read(tensor: Stored, offset: int) -> list[int]:
            piece = torch.empty(min(LEAF, tensor.size - offset), dtype=tensor.dtype)
            return leaves(checkpoint.read(tensor.name, offset, piece), tensor.dtype.itemsize)

        for name, tensor in checkpoint.tensors.items():
            for piece in pool.map(read, repeat(tensor), range(0, tensor.size, LEAF)):
                found.add(name, piece)
        return found.hexdigest()
