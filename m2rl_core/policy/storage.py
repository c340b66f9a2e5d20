"""A policy on disk: models as plain safetensors, and the state to resume from, both in pieces.

Of several processes each reads and writes the rows that it holds, so that none ever has the whole model. A state
written by any number of processes can be read by any other number: by several with ``torch.distributed.checkpoint``, by
one as a plain file, which is fifteen times as fast for a small model.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2rl_core.errors import DataError
from m2rl_core.policy import sharding
from m2rl_core.policy.optimizer import moments
from m2rl_core.run import team
from m2rl_core.weights import Checkpoint, Writer, copy_companions

__all__ = ["load_state", "read_rows", "save_state", "write_rows"]

ALONE = "policy.pt"
"""State of one process."""
Parameters = Mapping[str, Tensor]
"""Hugging Face name → parameter."""


def read_rows(folder: Path, parameters: Parameters, absent: set[str], source: Path | None) -> None:
    """Fill the parameters from a Hugging Face folder, one tensor (of several processes: its rows) in memory at a time.

    Args:
        absent: tensors that may be there and are not wanted: those tied to others.
        source: where the parameters are from, for messages.

    Raises:
        DataError: a tensor is missing, of another shape, or not this model's.
    """
    with Checkpoint.open(folder) as stored:
        for name, tensor in stored.tensors.items():
            if name in absent - parameters.keys():
                continue
            if name not in parameters or tensor.shape != parameters[name].shape:
                allowed = str(source) if source else "what its config.json says"
                raise DataError(f"{folder}: tensor '{name}' does not fit", found=tensor.shape, allowed=allowed)
            _fill(parameters[name], stored, name)
        if left := parameters.keys() - stored.tensors.keys():
            raise DataError(f"{folder} lacks the tensor '{min(left)}'")


@torch.no_grad()
def _fill(parameter: Tensor, stored: Checkpoint, name: str) -> None:
    tensor, (first, count) = stored.tensors[name], sharding.rows(parameter)
    width = tensor.size // tensor.shape[0]
    part = torch.empty(count * width, dtype=tensor.dtype)
    if count:
        stored.read(name, first * width, part)
        sharding.local(parameter).copy_(part.view(count, *tensor.shape[1:]))


def write_rows(folder: Path, model: Any, parameters: Parameters, source: Path | None) -> None:
    """Write a Hugging Face folder of float32 weights: every rank its rows, into the same files. Collective."""
    layout = {name: (torch.float32, tuple(parameter.shape)) for name, parameter in parameters.items()}
    if team.leads():
        folder.mkdir(parents=True, exist_ok=True)
        Writer(folder, layout).close()
        model.config.dtype = "float32"
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        if source is not None:
            copy_companions(source, folder)
    team.wait()
    with Writer(folder, layout, new=False) as writer:
        for name, parameter in parameters.items():
            (first, count), width = sharding.rows(parameter), parameter.numel() // len(parameter)
            if count:
                held = sharding.local(parameter.detach()).float().cpu().contiguous()
                writer.write(name, first * width, held.flatten())
    team.wait()


def save_state(folder: Path, parameters: Parameters, optimizer: torch.optim.Optimizer, **counts: int) -> None:
    """Everything that a bit-identical continuation needs. Collective."""
    state = _state(parameters, optimizer) | {name: torch.tensor(count) for name, count in counts.items()}
    if team.ranks() == 1:
        torch.save(state, folder / ALONE)
        return
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    save(state, storage_writer=FileSystemWriter(folder))


def load_state(folder: Path, parameters: Parameters, optimizer: torch.optim.Optimizer, *counts: str) -> dict[str, int]:
    """Take up a state, whatever number of processes wrote it; returns its counts. Collective."""
    found = {name: torch.tensor(0) for name in counts}
    state = _state(parameters, optimizer) | found
    if (folder / ALONE).exists():
        _copy_rows(state, torch.load(folder / ALONE, map_location="cpu", mmap=True, weights_only=True))
    else:
        _read_together(folder, state)
    return {name: int(count) for name, count in found.items()}


@torch.no_grad()
def _copy_rows(state: Parameters, stored: Parameters) -> None:
    """Each process takes its own rows of whole tensors."""
    for name, tensor in state.items():
        if tensor.ndim == 0:
            tensor.copy_(stored[name])
        else:
            first, count = sharding.rows(tensor)
            sharding.local(tensor).copy_(stored[name][first : first + count])


def _read_together(folder: Path, state: dict[str, Tensor]) -> None:
    """Each process takes its own rows of what several have written."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():  # one process without a group is what we mean
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        load(state, storage_reader=FileSystemReader(folder))


def _state(parameters: Parameters, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters and what AdamW holds of each, under names that do not depend on the number of processes."""
    found: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        found[f"parameter.{name}"] = parameter.detach()
        found |= {f"{kind}.{name}": value for kind, value in moments(optimizer, parameter).items()}
    return found
