"""transformers' blocks on a CPU: the same numbers within rounding, from fewer passes over memory.

Modules keep their parameters, names and hooks; only what ``forward`` computes with them is replaced, and only where the
module is one of those below, whose formulas are known. Others stay as they are.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

from m2rl_core.ops import rms_norm, rotate
from m2rl_core.policy.attention import packed_attention

__all__ = ["quicken"]

FAMILIES = ("Llama", "Qwen2", "Qwen3")
NORMS = {f"{family}RMSNorm" for family in FAMILIES}
ATTENTIONS = {f"{family}Attention" for family in FAMILIES}


def quicken(model: torch.nn.Module) -> None:
    """Give the norms and attentions of known architectures the forward passes of this module."""
    for name, module in model.named_modules():
        if not type(module).__module__.startswith("transformers.models."):
            continue
        if type(module).__name__ in NORMS:
            module.forward = MethodType(_norm_of_products if name.endswith("_layernorm") else _norm, module)
        elif type(module).__name__ in ATTENTIONS:
            module.forward = MethodType(_attend, module)


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def _norm_of_products(self: Any, hidden_states: Tensor) -> Tensor:
    """In the type of the matrix products that follow: rounded once for all of them."""
    held = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return rms_norm(hidden_states, self.weight, self.variance_epsilon, held)


def _attend(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **context: Any,
) -> tuple[Tensor, None]:
    """Rotated in the projections' own layout [R, C, heads, D], which is contiguous."""
    heads = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key, value = (proj(hidden_states).view(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
    if hasattr(self, "q_norm"):
        query, key = self.q_norm(query), self.k_norm(key)
    cos, sin = (table.unsqueeze(2) for table in position_embeddings)
    query, key, value = (s.transpose(1, 2) for s in (rotate(query, cos, sin), rotate(key, cos, sin), value))
    context["sliding_window"] = getattr(self, "sliding_window", None)
    out, _ = packed_attention(self, query, key, value, attention_mask, self.scaling, **context)
    return self.o_proj(out.flatten(-2)), None
