"""Weights in: from a Hugging Face folder at the start, and from the trainer while running."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from m2rl_core.engine.attention import NAME
from m2rl_core.errors import DataError, nearest

_LENGTH_DEPENDENT = {"dynamic", "longrope"}
"""Rotary scalings that transformers recomputes from the longest context in the batch."""


def open_model(folder: Path, *, device: str, dtype: torch.dtype, context: int) -> Any:
    """The causal LM in ``folder``, ready to be decoded with.

    Raises:
        DataError: no safetensors weights there, or an architecture that cannot be decoded with independent rows.
    """
    if not list(folder.glob("*.safetensors")):
        raise DataError(f"no safetensors weights in {folder}", then="convert the model with save_pretrained")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=NAME, use_safetensors=True, local_files_only=True
    )
    if not model._supports_attention_backend:
        raise DataError(f"{folder}: {type(model).__name__} takes no attention function", then="use another engine")
    _check_rotary(folder, model.config, context)
    return model.to(device).eval().requires_grad_(False)


def _check_rotary(folder: Path, config: Any, context: int) -> None:
    rope = getattr(config, "rope_parameters", None) or {}
    trained = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if rope.get("rope_type") in _LENGTH_DEPENDENT and context > trained:
        raise DataError(
            f"{folder}: with rotary scaling '{rope['rope_type']}' a sample would depend on the longest context beside it",
            found=f"contexts of up to {context} tokens",
            allowed=f"{trained} tokens",
            then="lower max_tokens or use another engine",
        )


def copy_weights(model: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Overwrite all weights in place.

    Args:
        tensors: (Hugging Face name, tensor of any float type on any device); a tied head once, under either name.

    Raises:
        DataError: a tensor that is unknown, missing, given twice or of another shape; weights may be half new then.
    """
    targets: dict[str, Tensor] = model.state_dict(keep_vars=True)
    given: set[int] = set()
    for name, tensor in tensors:
        target = targets.get(name)
        if target is None:
            raise DataError(f"the engine's model has no tensor '{name}'.{nearest(name, targets)}")
        if target.shape != tensor.shape:
            raise DataError(
                f"tensor '{name}' has another shape", found=tuple(tensor.shape), allowed=f"{tuple(target.shape)}"
            )
        if id(target) in given:
            raise DataError(f"tensor '{name}' was given twice", then="a tied head is given once")
        given.add(id(target))
        with torch.no_grad():
            target.copy_(tensor)
    missing = [name for name, target in targets.items() if id(target) not in given]
    if missing:
        raise DataError(f"{len(missing)} of {len(targets)} tensors were not given, the first: '{missing[0]}'")
