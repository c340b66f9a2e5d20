"""Weights on their way from the trainer to vLLM: checked against the model, and written as safetensors in buckets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from m2rl_core.errors import DataError, RunError, nearest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["checked", "files_of", "shapes_of", "write"]

BUCKET = 512 * 2**20
"""Bytes of a bucket, unless one tensor is larger."""


def files_of(model: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder.

    Raises:
        DataError: there are none.
    """
    if not (found := sorted(model.glob("*.safetensors"))):
        raise DataError(f"no safetensors weights in {model}", then="convert the model with save_pretrained")
    return found


def shapes_of(model: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a Hugging Face folder; a tied head is left out, under whichever name it was saved."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in files_of(model):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if json.loads((model / "config.json").read_text()).get("tie_word_embeddings"):
        shapes.pop("lm_head.weight", None)
    return shapes


def checked(
    tensors: Iterable[tuple[str, Tensor]], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """``tensors`` as they come.

    Raises:
        DataError: one that the model does not have, has in another shape, or was given before; at the end, one that
            is missing.
    """
    given: set[str] = set()
    for name, tensor in tensors:
        if name not in shapes:
            raise DataError(f"vLLM's model has no tensor '{name}'.{nearest(name, shapes)}")
        if tuple(tensor.shape) != shapes[name]:
            raise DataError(
                f"tensor '{name}' has another shape in vLLM", found=str(tuple(tensor.shape)), allowed=str(shapes[name])
            )
        if name in given:
            raise DataError(f"tensor '{name}' was given twice", then="give a tied head once")
        given.add(name)
        yield name, tensor
    if missing := [name for name in shapes if name not in given]:
        raise DataError(f"{len(missing)} of the model's {len(shapes)} tensors were not given", found=missing[0])


def write(tensors: Iterable[tuple[str, Tensor]], folder: Path, dtype: str, limit: int = BUCKET) -> list[Path]:
    """Write ``tensors``, converted to ``dtype``, and hold at most one bucket in memory.

    Raises:
        RunError: the folder cannot be written, or is full.
    """
    from safetensors.torch import save_file

    files: list[Path] = []
    try:
        folder.mkdir(parents=True)
        for bucket in _buckets(tensors, dtype, limit):
            path = folder / f"{len(files):05d}.safetensors"
            save_file(bucket, path)
            files.append(path)
    except OSError as error:
        raise RunError(
            f"engine.folder: weights cannot be written to {folder}: {error}",
            then="give the engine another folder, with room for twice the model",
        ) from error
    return files


def _buckets(tensors: Iterable[tuple[str, Tensor]], dtype: str, limit: int) -> Iterator[dict[str, Tensor]]:
    import torch

    wanted: torch.dtype = getattr(torch, dtype)
    bucket: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        # converted where it lies: half as much then leaves a GPU
        here = tensor.detach().to(wanted).cpu().contiguous()
        if bucket and size + here.nbytes > limit:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = here
        size += here.nbytes
    yield bucket
