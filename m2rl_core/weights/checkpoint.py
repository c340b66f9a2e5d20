"""Reading safetensors without mapping them: headers first, then any range of any tensor.

Format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, the data).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from m2rl_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""safetensors' names of the types that weights may have."""

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor on disk."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    start: int
    """Offset of its first byte within ``file``."""

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


class Checkpoint:
    """An open Hugging Face folder. Reading is safe from several threads."""

    def __init__(self, folder: Path, tensors: Mapping[str, Stored]) -> None:
        self.folder = folder
        self.tensors = tensors
        self._files: dict[Path, int] = {}
        for file in {tensor.file for tensor in tensors.values()}:
            with _understood(file):
                self._files[file] = os.open(file, os.O_RDONLY)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the headers of ``folder``: one ``model.safetensors``, or shards with their index.

        Raises:
            DataError: no folder, no safetensors, a broken header, a cut-off file, a type other than float; a file that
                may not be read, or is none.
        """
        tensors = [t for file in _files(folder) for t in _header(file)]
        [(name, times)] = Counter(t.name for t in tensors).most_common(1) or [("", 0)]
        if times != 1:
            raise DataError(
                f"{folder}: a tensor lies in two shards" if times else f"{folder} holds no tensor", found=name
            )
        if not (folder / SINGLE).exists():
            _check_index(folder, {t.name for t in tensors})
        return cls(folder, {t.name: t for t in tensors})

    def read(self, name: str, offset: int, out: Tensor) -> memoryview:
        """Fill ``out`` (contiguous, of the stored type) from element ``offset`` of a tensor; returns its bytes.

        Raises:
            DataError: the file ends too early, or its disk fails.
        """
        stored = self.tensors[name]
        raw = out.view(torch.uint8).numpy().data
        file, start, done = self._files[stored.file], stored.start + offset * stored.dtype.itemsize, 0
        while done < len(raw):
            with _understood(stored.file):
                read = os.preadv(file, [raw[done:]], start + done)
            if read == 0:
                raise DataError(f"{stored.file} ends within tensor '{name}'", then="copy the file again.")
            done += read
        return raw

    def load(self, name: str) -> Tensor:
        """A whole tensor, in its stored type."""
        stored = self.tensors[name]
        flat = torch.empty(stored.size, dtype=stored.dtype)
        self.read(name, 0, flat)
        return flat.view(stored.shape)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def stream_named(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every tensor in ``folder``, in its stored type, one in memory at a time.

    Raises:
        DataError: as :meth:`Checkpoint.open`.
    """
    with Checkpoint.open(folder) as checkpoint:
        for name in checkpoint.tensors:
            yield name, checkpoint.load(name)


def _files(folder: Path) -> list[Path]:
    """The weight files of ``folder``, chosen as ``transformers`` chooses."""
    if not folder.is_dir():
        found = f"{folder}, which is {'a file' if folder.exists() else 'not there'}"
        raise DataError("a model is a folder with config.json and safetensors", found=found)
    with _understood(folder):
        if (folder / SINGLE).exists():
            return [folder / SINGLE]
        if (folder / INDEX).exists():
            return [folder / name for name in sorted(set(_weight_map(folder).values()))]
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
    raise DataError(
        f"{folder} holds no safetensors",
        found=", ".join(pickles) or "no weights",
        allowed=f"{SINGLE}, or shards with {INDEX}",
        then="load it with transformers and save_pretrained() it." if pickles else "",
    )


@contextmanager
def _understood(path: Path, what: str = "") -> Iterator[None]:
    """Say which file cannot be read, or is none of ``what`` it should be.

    Raises:
        DataError: instead of what reading and parsing raise.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read", found=error.strerror, then="mend or copy it again") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DataError(f"{path} is no {what}", found=error) from error


def _weight_map(folder: Path) -> dict[str, str]:
    with _understood(folder / INDEX, "index of shards"):
        found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
        if stray := [name for name in found.values() if not isinstance(name, str)]:
            raise TypeError(f"{stray[0]!r} in place of a file's name")
        return found


def _header(file: Path) -> list[Stored]:
    """The tensors of one file, in the order in which they lie."""
    if not file.exists():
        raise DataError(
            f"a shard of the model in {file.parent} is missing", found=f"no {file.name}", then="copy the folder again"
        )
    with _understood(file, "safetensors file"), file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(opened.read(length))
        end = os.fstat(opened.fileno()).st_size
        found = [_stored(file, 8 + length, n, t) for n, t in header.items() if n != "__metadata__"]
    return list(_in_place(found, 8 + length, end))


def _in_place(tensors: list[Stored], start: int, end: int) -> Iterator[Stored]:
    """In file order; the format leaves no gaps, so that one that lies elsewhere would be read from another's bytes.

    Args:
        start: of the data within the file.
        end: of the file.
    """
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.bytes)):
        if tensor.start != start:
            found = f"byte {tensor.start}, where the one before ends at {start}"
            raise DataError(f"{tensor.file}: tensor '{tensor.name}' is not where it should be", found=found)
        start += tensor.bytes
        if start > end:
            raise DataError(f"{tensor.file} ends within tensor '{tensor.name}'", then="copy the file again.")
        yield tensor


def _stored(file: Path, data: int, name: str, entry: Mapping[str, object]) -> Stored:
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(span, list)):
        raise TypeError(f"the header's entry of '{name}'")
    if dtype not in DTYPES:
        raise DataError(f"{file}: tensor '{name}' has a type that is not read here", found=dtype, allowed=DTYPES)
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise ValueError(f"tensor '{name}' of shape {shape}")
    stored = Stored(name, DTYPES[dtype], tuple(shape), file, data + span[0])
    if span[1] - span[0] != stored.bytes:
        raise ValueError(f"{span[1] - span[0]} bytes for tensor '{name}' of shape {shape}")
    return stored


def _check_index(folder: Path, names: set[str]) -> None:
    if stray := sorted(names ^ set(_weight_map(folder))):
        raise DataError(f"the index and the shards of {folder} do not list the same tensors", found=stray[0])
