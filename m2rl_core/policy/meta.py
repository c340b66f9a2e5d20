"""A model without memory, that gets some once it is sharded: no process ever holds all of it.

Its parameters are then undefined until they are read from disk. What a checkpoint does not hold (tables of rotary
embeddings) is computed anew.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from m2rl_core.errors import DataError
from m2rl_core.trust import own_code

__all__ = ["give_memory", "outline"]


def outline(folder: Path, attention: str, *, trust_remote_code: bool = False, local_files_only: bool = True) -> Any:
    """The float32 model of a Hugging Face folder, on the meta device."""
    trust = {"trust_remote_code": trust_remote_code}
    with own_code(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=local_files_only, **trust)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention, **trust)


def give_memory(root: torch.nn.Module, device: torch.device) -> None:
    """Allocate what this process holds of ``root``.

    Raises:
        DataError: a buffer that cannot be computed anew.
    """
    tied = defaultdict(list)
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                tied[parameter].append((module, name))
    root.to_empty(device=device)
    for places in tied.values():  # each place has got memory of its own
        first, name = places[0]
        for module, other in places[1:]:
            setattr(module, other, getattr(first, name))
    for path, module in root.named_modules():
        if any(buffer is not None for buffer in module._buffers.values()):
            _compute_buffers(path, module, device)


def _compute_buffers(path: str, module: Any, device: torch.device) -> None:
    try:
        fresh = dict(type(module)(module.config).named_buffers(recurse=False))
        for name, buffer in module.named_buffers(recurse=False):
            buffer.copy_(fresh[name].to(device))
    except (AttributeError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} ({type(module).__name__}) has a buffer that cannot be computed anew, as several processes need",
            found=error,
            then="train this model with one process",
        ) from error
