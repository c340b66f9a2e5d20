"""Memory of one device at the fullest moment of a training step.

What the core holds: float32 master weights, gradients and two AdamW moments, all sharded over the devices; copies of
the weights in the type of the products, made by autocast on one device and gathered layer by layer by FSDP2 on several;
activations of one packed batch; what the ops on the head need; the engine's own weights and cache; one frozen model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

from m2rl_core.estimate import head
from m2rl_core.estimate.load import FLOAT32, Load

__all__ = ["Memory", "peak"]

PIECE = 1 << 24
"""Elements whose moments are on the device at a time: that of ``m2rl_core.policy.optimizer``, which imports torch."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device."""

    weights: float
    """Master weights, and their copies in the type of the products."""
    gradients: float
    optimizer: float
    activations: float
    head: float
    """Workspace of the ops on the head, its gradient while it waits, and a lecture."""
    engine: float
    cache: float
    frozen: float
    """The frozen model, and its gathered copies."""

    @property
    def total(self) -> float:
        return math.fsum(astuple(self))


@dataclass(frozen=True, slots=True)
class _Moment:
    """What is there at one moment of a step beside what is always there [bytes]."""

    copies: float = 0
    gradients: float = 0
    activations: float = 0
    head: float = 0
    frozen: float = 0
    without_gradients: bool = False
    """True while nothing is trained; once something is, batches add to the gradients."""

    def on(self, load: Load) -> Memory:
        """Together with what is always there."""
        shard = FLOAT32 * load.shape.parameters / load.devices
        return Memory(
            weights=shard + self.copies,
            gradients=0 if self.without_gradients else shard + self.gradients,
            optimizer=2 * (min(shard, FLOAT32 * PIECE) if load.offload else shard),
            activations=self.activations,
            head=self.head,
            engine=load.engine,
            cache=load.cache,
            frozen=_resident(load) + self.frozen,
        )


def peak(load: Load) -> Memory:
    """The fullest moment of a training step."""
    moments = (*_frozen_moments(load), *_training_moments(load))
    return max((moment.on(load) for moment in moments), key=lambda memory: memory.total)


def _training_moments(load: Load) -> Iterator[_Moment]:
    """The end of the forward pass, the head, and the backward passes of the last layer and of the embedding."""
    shape, tokens, lecture = load.shape, load.tokens, head.lecture(load)
    layer = _layer(load)
    # Without checkpointing, autocast's copies are saved for the backward pass with everything else.
    saved = shape.layers * (load.residual * shape.hidden * tokens if load.checkpointing else layer) + _mask(load)
    through, gathered = _copies(load)
    kept = gathered if load.checkpointing else through
    yield _Moment(through, 0, saved + (tokens * _forward(load) if load.checkpointing else 0), lecture)
    for workspace in _workspaces(load):
        yield _Moment(_between(load), 0, saved + tokens * _last(load), workspace + lecture)
    # A tied head's gradient waits for the embedding's, and both for their sum; several devices reduce it in float32.
    waiting = shape.head * load.gradient if shape.tied or load.devices > 1 else 0
    reduced = 0 if load.devices == 1 else load.size + FLOAT32
    working = tokens * _backward(load) + (layer if load.checkpointing else 0)
    yield _Moment(kept, shape.layer_parameters * reduced, saved + working, waiting + lecture)
    sums = max((3 if shape.tied else 1) * shape.head * load.gradient, shape.embeddings * reduced)
    yield _Moment(0, 0, 0, sums + lecture)


def _workspaces(load: Load) -> Iterator[float]:
    """Of the ops on the head, one moment after the other."""
    if load.separable:
        yield head.fused(load)
        yield head.handing_on(load)
    else:
        yield head.logps(load)


def _frozen_moments(load: Load) -> Iterator[_Moment]:
    """While the frozen model is opened, and while it scores or lectures."""
    if (shape := load.frozen) is None:
        return
    scorer = replace(load, shape=shape)
    if load.devices == 1:  # all of it is there in float32 before its matrices are cast
        yield _Moment(frozen=FLOAT32 * shape.parameters - _resident(load), without_gradients=not load.lectured)
    # Nothing is saved, but the embedding and the layer's input stay.
    passing = load.tokens * (_forward(scorer) + 2 * load.residual * shape.hidden) + _mask(load)
    gathered = 2 * load.size * shape.layer_parameters if load.devices > 1 else 0
    workspace = head.lecture(load) if load.lectured else head.scoring(load, shape)
    yield _Moment(0, 0, passing, 0, gathered, not load.lectured)
    last = load.tokens * _last(scorer)
    yield _Moment(0, 0, last, workspace, 0, not load.lectured)


def _resident(load: Load) -> float:
    """The frozen model: on one device its layers' matrices in the type of the products, the rest in float32.

    On several it is sharded in float32, and embedding and head stay gathered, as no backward pass lets go of them.
    """
    if (shape := load.frozen) is None:
        return 0
    if load.devices > 1:
        return FLOAT32 * shape.parameters / load.devices + load.size * shape.embeddings
    return load.size * shape.matrices + FLOAT32 * (shape.parameters - shape.matrices)


def _copies(load: Load) -> tuple[float, float]:
    """Weights in the type of the products: at the end of the forward pass, and while one layer works."""
    shape = load.shape
    if load.devices > 1:  # the layer that works, the next one, and the root, which holds the embedding
        gathered = load.size * (2 * shape.layer_parameters + shape.embeddings)
        return gathered, gathered
    if load.autocast:
        return load.size * shape.products, load.size * shape.layer_products
    return 0, 0


def _between(load: Load) -> float:
    """While the head is at work and no layer is: what is saved, or what FSDP2 has not yet let go of."""
    if load.devices > 1:
        return load.size * (load.shape.layer_parameters + load.shape.embeddings)
    return load.cast * (0 if load.checkpointing else load.shape.products)


def _layer(load: Load) -> float:
    """Activations that one layer saves for its backward pass.

    Per token, with H, Q and KV features and F of the MLP: the norms keep their float32 input and its normalised form;
    products keep their input, which autocast casts anew for each; attention keeps query, key and value for every query
    head, and its output; the MLP four tensors. On a CPU (:mod:`m2rl_core.policy.blocks`) norms keep the normalised form
    alone, and their output is cast once for all products.
    """
    shape, size = load.shape, load.size
    norms = 2 * (FLOAT32 + (0 if load.cpu else load.residual)) * shape.hidden
    inputs = (5 if load.autocast and not load.cpu else 2) * size * shape.hidden
    qk_norm = (FLOAT32 + (0 if load.cpu else size)) * (shape.q + shape.kv) if shape.qk_norm else 0
    states = 4 * (FLOAT32 if load.row else size) * shape.q + (size * shape.q if load.row and load.size < FLOAT32 else 0)
    statistics = FLOAT32 * (2 + 2 * shape.heads + shape.kv_heads)
    return load.tokens * (norms + inputs + qk_norm + states + statistics + 4 * size * shape.ffn)


def _mask(load: Load) -> float:
    """Of dense attention, in float32, one for all layers."""
    return FLOAT32 * load.tokens * load.row


def _forward(load: Load) -> float:
    """Bytes per token that one layer needs at once in a forward pass that saves nothing: the MLP's product."""
    return 3 * load.size * load.shape.ffn + 2 * load.residual * load.shape.hidden


def _backward(load: Load) -> float:
    """Bytes per token of the gradients in flight: of the residual stream, of a product, of the MLP's hidden layer.

    Of that there are two on a CPU, measured: of the product of its halves and of one half.
    """
    return (load.residual + load.size) * load.shape.hidden + (2 if load.cpu else 1) * load.size * load.shape.ffn


def _last(load: Load) -> float:
    """Bytes per token that the last norm saves, and the hidden states that the head reads."""
    return (FLOAT32 + (1 if load.cpu else 2) * load.residual) * load.shape.hidden
