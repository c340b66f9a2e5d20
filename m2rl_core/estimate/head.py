"""What the ops on the head hold: the fused loss, the log-probs of losses of whole sequences, scoring, a lecture."""

from __future__ import annotations

import math

from m2rl_core.estimate.load import FLOAT32, Load
from m2rl_core.estimate.shape import Shape

__all__ = ["between", "fused", "handing_on", "lecture", "logps", "scoring"]

FUSED = {True: 1 << 25, False: 5 << 27}
"""On a CPU, on a GPU: logits that the fused loss holds at once (:data:`m2rl_core.ops.divergence.HELD_ELEMENTS`)."""
LOGPS = {True: 1 << 23, False: 1 << 28}
"""The same of the log-probs of whole sequences, and of scoring (:data:`m2rl_core.ops.logprob.HELD_ELEMENTS`)."""
SLICE = {True: 4096, False: 16384}
"""Vocabulary that those take at a time (:data:`m2rl_core.ops.logprob.SLICE`)."""
ALIGN = 16
"""Parts start at multiples of this (:data:`m2rl_core.ops.products.ALIGN`)."""


def fused(load: Load) -> float:
    """Workspace of the fused loss, all of it in the forward pass.

    Copies of head and hidden states in the type of the products, both gradients (the head's in float32), the logits of
    some tokens, and their product with the head; with a lecture, the teacher's copies and logits too.
    """
    shape, size = load.shape, load.size
    chunk = _longest(load.tokens, FUSED[load.cpu] // ((2 if load.lectured else 1) * shape.vocab))
    logits = size * chunk * shape.vocab * (2 if load.lectured else 1)
    product = size * max(chunk * shape.hidden, shape.head if _copied(load) else 0)
    taught = _copies(load, load.frozen) if load.lectured and load.frozen else 0
    return _copies(load, shape) + between(load) + logits + product + taught


def between(load: Load) -> float:
    """What the fused loss hands from forward to backward pass: the gradients of hidden states and of the head."""
    return load.tokens * load.shape.hidden * load.residual + load.shape.head * FLOAT32


def handing_on(load: Load) -> float:
    """When they are handed on: the head's once more in its type, the hidden states' spread over the batch."""
    copied = 0 if load.gradient == FLOAT32 else load.shape.head * load.gradient
    return between(load) + copied + load.tokens * load.shape.hidden * load.residual


def logps(load: Load) -> float:
    """Workspace of the backward pass of log-probs of whole sequences.

    The head's gradient, the hidden states' in float32, a copy of these; then the logits of some tokens over a slice of
    the vocabulary, with that slice of the head and of its gradient, or at the end the hidden states' gradient again.
    """
    shape, size = load.shape, load.size
    width, chunk = _block(load, shape)
    products = max(chunk, width) if _copied(load) else 0
    block = size * chunk * width + shape.hidden * (width * (load.cast + FLOAT32) + products * size)
    last = load.tokens * shape.hidden * (load.residual if load.residual < FLOAT32 else 0)
    whole = shape.head * load.gradient + load.tokens * shape.hidden * (FLOAT32 + load.cast)
    return whole + max(block, last + size * chunk * width)


def scoring(load: Load, shape: Shape) -> float:
    """Workspace of log-probs without a gradient, by a model of ``shape``."""
    width, chunk = _block(load, shape)
    return _copies(load, shape) + load.size * chunk * width


def lecture(load: Load) -> float:
    """The teacher's hidden states of one batch, which stay until its backward pass is over."""
    return load.tokens * load.frozen.hidden * load.residual if load.lectured and load.frozen else 0


def _copies(load: Load, shape: Shape) -> float:
    """Head and hidden states in the type of the products, where they have another."""
    return load.cast * (shape.head + load.tokens * shape.hidden)


def _copied(load: Load) -> bool:
    """True where a product must be there before it is added to a float32 sum: no kernel of the CPU does both."""
    return load.cpu and load.size < FLOAT32


def _block(load: Load, shape: Shape) -> tuple[int, int]:
    """(slice of the vocabulary, tokens) whose logits are there at once."""
    width = _longest(shape.vocab, SLICE[load.cpu])
    return width, _longest(load.tokens, LOGPS[load.cpu] // width)


def _longest(count: int, most: int) -> int:
    """Of the even parts of ``count`` things, at most about ``most`` each (:func:`m2rl_core.ops.products.parts`)."""
    number = math.ceil(count / max(most, ALIGN))
    return min(count, math.ceil(count / number / ALIGN) * ALIGN)
