"""Memory of one device at the fullest moment of a training step.

What the core holds: float32 master weights, gradients and two AdamW moments, all sharded over the devices; copies of
the weights in the type of the products, made by autocast on one device and gathered layer by layer by FSDP2 on several;
activations of one packed batch; what the fused head needs; the engine's own weights and cache; one frozen model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import NamedTuple

from m2rl_core.estimate.shape import Shape

__all__ = ["CHUNK", "Load", "Memory", "peak"]

CHUNK = 1 << 24
"""Logits that the fused head holds at once (:data:`m2rl_core.ops.logprob.CHUNK_ELEMENTS`)."""
FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Load:
    """What a training stage asks of each device."""

    shape: Shape
    tokens: int
    """Of the largest packed batch; all of them count as trained."""
    devices: int = 1
    dtype: str = "bfloat16"
    """Of the products."""
    checkpointing: bool = False
    row: int = 0
    """Columns of a row where attention is dense over it; 0 where sequences keep to themselves without a mask."""
    engine: float = 0
    """The engine's weights [bytes]."""
    cache: float = 0
    """Its keys and values [bytes]."""
    frozen: int = 0
    """Parameters of the one teacher or reference that is there at a time, in bfloat16 and whole on every device."""

    @property
    def size(self) -> int:
        """Bytes of a number in the type of the products."""
        return FLOAT32 if self.dtype == "float32" else 2

    @property
    def autocast(self) -> bool:
        return self.devices == 1 and self.size < FLOAT32

    @property
    def residual(self) -> int:
        """Bytes of a number between layers: FSDP2 casts the embedding, autocast does not."""
        return FLOAT32 if self.autocast else self.size


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device."""

    weights: float
    """Master weights, and their copies in the type of the products."""
    gradients: float
    optimizer: float
    activations: float
    head: float
    """Workspace of the fused head."""
    engine: float
    cache: float
    frozen: float

    @property
    def total(self) -> float:
        return math.fsum(astuple(self))


class _Moment(NamedTuple):
    """What is there at one moment of a step beside what is always there [bytes]."""

    copies: float
    gradients: float
    activations: float
    head: float

    def on(self, load: Load) -> Memory:
        """Together with what is always there. Gradients are: batches add to them."""
        shard = FLOAT32 * load.shape.parameters / load.devices
        return Memory(
            weights=shard + self.copies,
            gradients=shard + self.gradients,
            optimizer=2 * shard,
            activations=self.activations,
            head=self.head,
            engine=load.engine,
            cache=load.cache,
            frozen=2 * load.frozen,
        )


def peak(load: Load) -> Memory:
    """The fullest moment of a training step."""
    return max((moment.on(load) for moment in _moments(load)), key=lambda memory: memory.total)


def _moments(load: Load) -> Iterator[_Moment]:
    """The end of the forward pass; then the backward passes of the head, of the last layer and of the embedding."""
    shape, size, tokens = load.shape, load.size, load.tokens
    layer = _layer(load)
    # Without checkpointing, autocast's copies are saved for the backward pass with everything else.
    saved = shape.layers * (load.residual * shape.hidden * tokens if load.checkpointing else layer)
    through, gathered = _copies(load)
    kept = gathered if load.checkpointing else through
    yield _Moment(through, 0, saved + (tokens * _forward(load) if load.checkpointing else 0), 0)
    yield _Moment(kept, 0, saved + tokens * _last(load), head_bytes(load))
    # A tied head's gradient waits for the embedding's, and both for their sum; several devices reduce it in float32.
    gradient = shape.head * (FLOAT32 if load.autocast else size)
    reduced = 0 if load.devices == 1 else size + FLOAT32
    working = tokens * _backward(load) + (layer if load.checkpointing else 0)
    yield _Moment(kept, shape.layer_parameters * reduced, saved + working, gradient if shape.tied else 0)
    yield _Moment(gathered, 0, 0, max((3 if shape.tied else 1) * gradient, shape.embeddings * reduced))


def _copies(load: Load) -> tuple[float, float]:
    """Weights in the type of the products: at the end of the forward pass, and while one layer works."""
    shape = load.shape
    if load.devices > 1:  # the layer that works, the next one, and the root, which holds the embedding
        gathered = load.size * (2 * shape.layer_parameters + shape.embeddings)
        return gathered, gathered
    if load.autocast:
        return load.size * shape.products, load.size * shape.layer_products
    return 0, 0


def _layer(load: Load) -> float:
    """Activations that one layer saves for its backward pass.

    Per token, with H, Q and KV features and F of the MLP: the norms keep their float32 input and its normalised form;
    products keep their input, which autocast casts anew for each; attention keeps query, key and value for every query
    head, and its output; the MLP four tensors.
    """
    shape, size = load.shape, load.size
    norms = 2 * (FLOAT32 + load.residual) * shape.hidden
    inputs = (5 if load.autocast else 2) * size * shape.hidden
    qk_norm = (FLOAT32 + size) * (shape.q + shape.kv) if shape.qk_norm else 0
    states = 4 * (FLOAT32 if load.row else size) * shape.q + (size * shape.q if load.row and load.size < FLOAT32 else 0)
    mask = FLOAT32 * load.row
    statistics = FLOAT32 * (2 + 2 * shape.heads + shape.kv_heads)
    return load.tokens * (norms + inputs + qk_norm + states + mask + statistics + 4 * size * shape.ffn)


def _forward(load: Load) -> float:
    """Bytes per token that one layer needs at once in a forward pass that saves nothing: the MLP's product."""
    return 3 * load.size * load.shape.ffn + 2 * load.residual * load.shape.hidden


def _backward(load: Load) -> float:
    """Bytes per token of the gradients in flight: of the residual stream, of a product, of the MLP's hidden layer."""
    return (load.residual + load.size) * load.shape.hidden + load.size * load.shape.ffn


def _last(load: Load) -> float:
    """Bytes per token that the last norm saves, and the hidden states that the head reads."""
    return (FLOAT32 + 2 * load.residual) * load.shape.hidden


def head_bytes(load: Load) -> float:
    """Workspace of the fused head's backward pass: [vocabulary, hidden] a few times, one chunk of logits.

    A copy of the head, its float32 gradient, the hidden states' gradient and their copy; then either the elementwise
    work on a chunk (four float32 of its size) or its product with the hidden states.
    """
    shape, size = load.shape, load.size
    chunk = shape.vocab * min(load.tokens, max(16, CHUNK // shape.vocab))
    cast = size if load.autocast else 0
    whole = shape.head * (cast + FLOAT32)
    hidden = load.tokens * shape.hidden * (load.residual + cast)
    return whole + hidden + max(4 * FLOAT32 * chunk, (2 * FLOAT32 + size) * chunk + size * shape.head)
