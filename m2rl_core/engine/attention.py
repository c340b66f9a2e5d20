"""How a transformers model is made to use the shelves: an attention function, and one plan per forward pass.

The model sees one flat sequence [1, T] of tokens that have nothing to do with each other, so its linear layers pad
nothing; which token attends to what is the plan's business. transformers builds no mask for an attention function that
has no mask function of the same name (``masking_utils._preprocess_mask_arguments``), and hands unknown keyword arguments
of ``forward`` down to it (https://huggingface.co/docs/transformers/attention_interface).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from m2rl_core.engine.cache import Shelf
from m2rl_core.errors import DataError

NAME = "m2rl_embedded"


class Plan(Protocol):
    """Who attends to what in one forward pass."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """[T, heads, D] from the scaled query [T, heads, D] and key and value [T, kv heads, D]."""
        ...


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers' attention modules call; all tensors are [1, heads, T, head size].

    Attention is computed in float32 on the CPU: bfloat16 products of batches are not bit-equal there, nor faster.

    Raises:
        DataError: the model's attention has a part that this engine lacks.
    """
    if softcap is not None or s_aux is not None:
        raise DataError(
            f"{type(module).__name__}: the embedded engine knows no soft-capped attention and no attention sinks",
            then="use another engine for this model, e.g. engine: vllm",
        )
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    q, k, v = (t[0].transpose(0, 1).to(dtype) for t in (query, key, value))
    q = q * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    layer: int = module.layer_idx  # type: ignore[assignment]  # nn.Module types every attribute as Tensor | Module
    return plan.attend(layer, q, k, v, sliding_window).to(query.dtype).unsqueeze(0), None


AttentionInterface.register(NAME, attend)


@dataclass(slots=True)
class Segment:
    """Prompts of one length, one after the other, and where their keys and values go."""

    start: int
    prompts: int
    length: int
    shelf: Shelf
    slots: Tensor
    """Slots of all rows of these prompts."""
    prompt: Tensor
    """Index of each slot's prompt within the segment."""


@dataclass(slots=True)
class Prefill:
    """Whole prompts: causal attention within each, keys and values copied to every row of its job."""

    segments: list[Segment]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        out = query.new_zeros(*query.shape[:2], value.shape[-1])
        for s in self.segments:
            span = slice(s.start, s.start + s.prompts * s.length)
            q, k, v = (t[span].unflatten(0, (s.prompts, s.length)).transpose(1, 2) for t in (query, key, value))
            mixed = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=_band(s.length, window, q),
                is_causal=_fits(s.length, window),
                scale=1.0,
                enable_gqa=True,
            )
            out[span] = mixed.transpose(1, 2).flatten(0, 1)
            s.shelf.put(layer, s.slots, k[s.prompt], v[s.prompt])
        return out


def _fits(length: int, window: int | None) -> bool:
    return window is None or length <= window


def _band(length: int, window: int | None, like: Tensor) -> Tensor | None:
    """Where a sliding window matters: True for the last ``window`` positions up to the query's own."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=like.device)
    back = position.unsqueeze(1) - position
    return (back >= 0) & (back < window)


@dataclass(slots=True)
class Lane:
    """The rows of one shelf in a decoding step."""

    shelf: Shelf
    start: int
    positions: Tensor
    """Of each row's newest token, [rows]."""
    _biases: dict[int | None, Tensor] = field(default_factory=dict)

    def bias(self, window: int | None) -> Tensor:
        """0 where a row may look and -inf elsewhere, [rows, 1, tokens]; one tensor for all layers."""
        if window not in self._biases:
            back = self.positions.unsqueeze(1) - torch.arange(self.shelf.tokens, device=self.positions.device)
            hidden = back < 0 if window is None else (back < 0) | (back >= window)
            zeros = torch.zeros(hidden.shape, device=hidden.device)
            self._biases[window] = zeros.masked_fill_(hidden, float("-inf")).unsqueeze(1)
        return self._biases[window]


@dataclass(slots=True)
class Decode:
    """One new token of every row: two batched products per shelf. Query heads that share keys form one matrix."""

    lanes: list[Lane]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        out = query.new_zeros(*query.shape[:2], value.shape[-1])
        for lane in self.lanes:
            rows = len(lane.shelf.rows)
            span = slice(lane.start, lane.start + rows)
            keys, values = lane.shelf.append(layer, lane.positions, key[span], value[span])
            q = query[span].reshape(len(keys), -1, query.shape[-1])
            scores = torch.bmm(q, keys.transpose(1, 2)).view(rows, query.shape[1], -1)
            probs = torch.softmax(scores.float().add_(lane.bias(window)), dim=-1).to(values.dtype)
            out[span] = torch.bmm(probs.view(q.shape[0], q.shape[1], -1), values).view(rows, query.shape[1], -1)
        return out
