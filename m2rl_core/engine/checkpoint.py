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
from m2rl_core.trust import own_code

LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers, in transformers' words, that the plans of :mod:`.attention` know."""
ADAPTIVE_ROPE = {"dynamic", "longrope"}
"""Rotary scalings that transformers recomputes from the longest context of a batch."""


def open_model(folder: Path, *, device: str, dtype: torch.dtype, context: int, trust_remote_code: bool = False) -> Any:
    """The causal LM in ``folder``, ready to be decoded with.

    Raises:
        DataError: no safetensors weights there, code of its own that is not trusted, or an architecture whose rows
            cannot be decoded independently.
    """
    if not list(folder.glob("*.safetensors")):
        raise DataError(f"no safetensors weights in {folder}", then="convert the model with save_pretrained")
    with own_code(folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=NAME,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    if problem := _unsuitable(model, context):
        raise DataError(f"{folder}: the embedded engine cannot decode {type(model).__name__}", found=problem)
    return model.to(device).eval().requires_grad_(False)


def _unsuitable(model: Any, context: int) -> str:
    """Why this engine would draw from another distribution than the model's, or nothing."""
    if not model._supports_attention_backend:
        return "a model that takes no attention function"
    if foreign := set(getattr(model.config, "layer_types", None) or ()) - LAYERS:
        return f"layers of {', '.join(sorted(foreign))}"
    rope = getattr(model.config, "rope_parameters", None) or {}
    limit = rope.get("original_max_position_embeddings") or model.config.max_position_embeddings
    if rope.get("rope_type") in ADAPTIVE_ROPE and context > limit:
        return f"{rope['rope_type']} rotary scaling, by which a sample beyond {limit} tokens changes those beside it"
    return ""


@torch.no_grad()
def copy_weights(model: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Overwrite all weights in place.

    Args:
        tensors: (Hugging Face name, tensor of any float type on any device); a tied head once, under either name.

    Raises:
        DataError: a tensor that is unknown, missing, given twice or of another shape. Some are overwritten by then.
    """
    targets: dict[str, Tensor] = model.state_dict(keep_vars=True)
    given: set[int] = set()
    for name, tensor in tensors:
        target = targets.get(name)
        if target is None:
            raise DataError(f"the engine's model has no tensor '{name}'.{nearest(name, targets)}")
        if target.shape != tensor.shape:
            found, allowed = (str(tuple(t.shape)) for t in (tensor, target))
            raise DataError(f"tensor '{name}' has another shape in the engine", found=found, allowed=allowed)
        if id(target) in given:
            raise DataError(f"tensor '{name}' was given twice", then="give a tied head once")
        given.add(id(target))
        target.copy_(tensor)
    missing = [name for name, target in targets.items() if id(target) not in given]
    if missing:
        raise DataError(f"{len(missing)} of the engine's {len(targets)} tensors were not given", found=missing[0])
