"""How a transformers model is made to use the shelves: an attention function, and one plan per forward pass.

The model sees one flat sequence [1, T] of tokens that have nothing to do with each other, so that its linear layers pad
nothing; which token attends to what is the plan's business. transformers builds no mask for an attention function
without a mask function of the same name (``masking_utils._preprocess_mask_arguments``), and hands keyword arguments of
``forward`` that it does not know down to it (https://huggingface.co/docs/transformers/attention_interface).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from m2rl_core.engine.cache import Shelf
from m2rl_core.errors import DataError

NAME = "m2rl_embedded"
"""Of the attention function, for ``from_pretrained(attn_implementation=...)``."""


class Plan(Protocol):
    """Who attends to what in one forward pass."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """[T, heads, D] from the scaled query [T, heads, D] and key and value [T, kv heads, D].

        ``window`` is the number of positions, its own included, that a query may look back on; ``None``: all.
        """
        ...


def embedded_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    plan: Plan,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' attention modules call, with tensors of [1, heads, T, head size].

    On the CPU attention runs in float32: there, batched bfloat16 products depend on the number of matrices.

    Raises:
        DataError: the model's attention has a part that this engine lacks.
    """
    if softcap is not None or s_aux is not None:
        raise DataError(
            f"{type(module).__name__}: the embedded engine has no soft-capped attention and no attention sinks",
            then="use another engine for this model",
        )
    dtype = torch.float32 if query.device.type == "cpu" else query.dtype
    q, k, v = (tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value))
    q = q * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    return plan.attend(module.layer_idx, q, k, v, sliding_window).to(query.dtype).unsqueeze(0), None


AttentionInterface.register(NAME, embedded_attention)


@dataclass(slots=True)
class Segment:
    """Prompts of one length, one after the other in the flat sequence, and where their keys and values go."""

    start: int
    prompts: int
    length: int
    shelf: Shelf
    slots: Tensor
    """Slots of all rows of these prompts."""
    owner: Tensor
    """Index of each slot's prompt within the segment."""


@dataclass(slots=True)
class Prefill:
    """Whole prompts: causal attention within each; keys and values are copied to every row of its job."""

    segments: list[Segment]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        out = query.new_zeros(*query.shape[:2], value.shape[-1])
        for s in self.segments:
            span = slice(s.start, s.start + s.prompts * s.length)
            q, k, v = (t[span].view(s.prompts, s.length, *t.shape[1:]).transpose(1, 2) for t in (query, key, value))
            band = None if window is None or s.length <= window else _band(s.length, window, q.device)
            mixed = scaled_dot_product_attention(q, k, v, band, is_causal=band is None, scale=1.0, enable_gqa=True)
            out[span] = mixed.transpose(1, 2).flatten(0, 1)
            s.shelf.put(layer, s.slots, k[s.owner], v[s.owner])
        return out


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """Bool [length, length]: True for the last ``window`` positions up to the query's own."""
    position = torch.arange(length, device=device)
    back = position.unsqueeze(1) - position
    return (back >= 0) & (back < window)


@dataclass(slots=True)
class Lane:
    """The rows of one shelf in a decoding step."""

    shelf: Shelf
    start: int
    slots: Tensor
    positions: Tensor
    """Of each row's newest token, [rows]."""
    _biases: dict[int | None, Tensor] = field(default_factory=dict)

    def bias(self, window: int | None) -> Tensor:
        """0 where a row may look and -inf elsewhere, [rows, 1, tokens]; shared by all layers."""
        if window not in self._biases:
            back = self.positions.unsqueeze(1) - torch.arange(self.shelf.tokens, device=self.positions.device)
            hidden = back < 0 if window is None else (back < 0) | (back >= window)
            zeros = torch.zeros(hidden.shape, device=hidden.device)
            self._biases[window] = zeros.masked_fill_(hidden, float("-inf")).unsqueeze(1)
        return self._biases[window]


@dataclass(slots=True)
class Decode:
    """One new token for every row: two batched products per shelf, one matrix per row and key head."""

    lanes: list[Lane]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        heads = query.shape[1]
        out = query.new_zeros(len(query), heads, value.shape[-1])
        for lane in self.lanes:
            rows = len(lane.shelf.rows)
            span = slice(lane.start, lane.start + rows)
            keys, values = lane.shelf.append(layer, lane.slots, lane.positions, key[span], value[span])
            q = query[span].reshape(len(keys), -1, query.shape[-1])
            scores = torch.bmm(q, keys.transpose(1, 2)).view(rows, heads, -1)
            probs = torch.softmax(scores.float().add_(lane.bias(window)), dim=-1).to(values.dtype)
            out[span] = torch.bmm(probs.view(len(keys), -1, lane.shelf.tokens), values).view(rows, heads, -1)
        return out
