"""Writing safetensors in place: the layout is fixed first, then every piece has its offset."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from m2rl_core.weights.checkpoint import DTYPES, INDEX, SINGLE, Stored

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 5_000_000_000
"""Largest shard."""

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Tensor name → type and shape."""


class Writer:
    """A checkpoint being written into ``folder``: every tensor has its place from the start.

    Filling is safe from several threads. The caller hands in a folder under a temporary name, and flushes and renames
    it after :meth:`close` (:func:`m2rl_core.files.atomic_folder` does both).

    Args:
        new: false in the second and later processes that fill what one has begun with the same layout.
    """

    def __init__(self, folder: Path, layout: Layout, *, shard_bytes: int = SHARD_BYTES, new: bool = True) -> None:
        self._tensors: dict[str, Stored] = {}
        self._files: dict[Path, int] = {}
        shards = _shards(_planned(folder, layout), shard_bytes)
        for number, shard in enumerate(shards, 1):
            one = len(shards) == 1
            file = folder / (SINGLE if one else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
            header, placed = _place(file, shard)
            self._tensors |= {tensor.name: tensor for tensor in placed}
            self._files[file] = os.open(file, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0), 0o644)
            if new:
                os.write(self._files[file], header)
                os.ftruncate(self._files[file], len(header) + sum(tensor.bytes for tensor in placed))
        if new and len(shards) > 1:
            _write_index(folder, self._tensors)

    def write(self, name: str, offset: int, values: Tensor) -> None:
        """Put ``values`` (flat, contiguous, of the tensor's type) at element ``offset`` of a tensor."""
        tensor = self._tensors[name]
        raw = values.view(torch.uint8).numpy().data
        file, start, done = self._files[tensor.file], tensor.start + offset * tensor.dtype.itemsize, 0
        while done < len(raw):
            done += os.pwrite(file, raw[done:], start + done)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _planned(folder: Path, layout: Layout) -> list[Stored]:
    """The tensors by name, their places still open."""
    return [Stored(name, dtype, shape, folder, 0) for name, (dtype, shape) in sorted(layout.items())]


def _shards(tensors: list[Stored], limit: int) -> list[list[Stored]]:
    """Tensors in order, cut where a shard would exceed ``limit`` bytes."""
    shards: list[list[Stored]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.bytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.bytes
    return shards


def _place(file: Path, tensors: list[Stored]) -> tuple[bytes, list[Stored]]:
    """The header of one file and where its tensors lie; wide types come first, so that all are aligned."""
    codes = {dtype: code for code, dtype in DTYPES.items()}
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    ends = list(accumulate(tensor.bytes for tensor in ordered))
    entries = {
        t.name: {"dtype": codes[t.dtype], "shape": list(t.shape), "data_offsets": [end - t.bytes, end]}
        for t, end in zip(ordered, ends, strict=True)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, [
        Stored(t.name, t.dtype, t.shape, file, len(header) + end - t.bytes)
        for t, end in zip(ordered, ends, strict=True)
    ]


def _write_index(folder: Path, tensors: Mapping[str, Stored]) -> None:
    index = {
        "metadata": {"total_size": sum(tensor.bytes for tensor in tensors.values())},
        "weight_map": {name: tensors[name].file.name for name in sorted(tensors)},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
