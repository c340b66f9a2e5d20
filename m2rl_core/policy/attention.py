"""Attention over packed rows: every token sees its own sequence up to itself and nothing else.

On a CPU: dense scaled-dot-product attention in float32 over each (short) row, twice as fast as in bfloat16 there.
On CUDA: variable-length attention of torch over the sequences of one long row; nothing quadratic is ever held.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from m2rl_core.errors import DataError

NAME = "m2rl_packed"
UNKNOWN = ("sliding_window", "softcap", "s_aux")


def dense_mask(sequence_RC: Tensor) -> Tensor:
    """float32 [R, 1, C, C]: 0 where the row's token may look, −inf elsewhere; filling (-1) sees filling.

    In float32, because every layer would make a copy of its own of a bool mask, and save it for its backward pass.
    """
    same = sequence_RC[:, None, :, None] == sequence_RC[:, None, None, :]
    seen = same & torch.ones_like(same[0, 0]).tril()
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)


def sequence_bounds(position_T: Tensor) -> tuple[Tensor, int]:
    """(int32 cumulative sequence lengths, longest) of flat packed tokens, for variable-length kernels."""
    starts = torch.nonzero(position_T == 0)[:, 0]
    bounds = torch.cat([starts, starts.new_tensor([len(position_T)])]).to(torch.int32)
    return bounds, int(bounds.diff().max())


def _grouped(states: Tensor, times: int) -> Tensor:
    return states if times == 1 else states.repeat_interleave(times, dim=1)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    bounds: tuple[Tensor, int] | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature; states are [R, heads, C, D].

    Raises:
        DataError: the model's attention has a part that this one has not, so its log-probs would be wrong.
    """
    if asked := sorted(name for name in UNKNOWN if other.get(name) is not None):
        raise DataError(f"{type(module).__name__}: packed training does not know attention with {', '.join(asked)}")
    if bounds is not None:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (s.transpose(1, 2).flatten(0, 1).bfloat16() for s in (query, key, value))
        k, v = (_grouped(s, q.shape[1] // s.shape[1]) for s in (k, v))
        packed = varlen_attn(q, k, v, bounds[0], bounds[0], bounds[1], bounds[1], scale=scaling, window_size=(-1, 0))
        out = cast(Tensor, packed)
        return out.view(query.shape[0], query.shape[2], *out.shape[1:]), None
    times = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        out = functional.scaled_dot_product_attention(
            query.float(),
            _grouped(key, times).float(),
            _grouped(value, times).float(),
            attn_mask=attention_mask,
            scale=scaling,
        )
    return out.transpose(1, 2).to(value.dtype), None


AttentionInterface.register(NAME, packed_attention)
