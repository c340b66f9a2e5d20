"""What the engine holds on one device, and how long it draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m2rl_core.config import Study
from m2rl_core.estimate.device import Device, Machine
from m2rl_core.estimate.lengths import Lengths
from m2rl_core.estimate.load import FLOAT32
from m2rl_core.estimate.shape import Shape

__all__ = ["Engine", "engine_of", "prefill_flops", "rollout_seconds"]

EMBEDDED = {"dtype": "float32", "rows": 256, "cache_gib": 4.0}
"""Defaults of :class:`m2rl_core.engine.embedded.EmbeddedEngine`, whose module imports torch."""
SLACK = 2
"""Of the embedded engine's shelves (:data:`m2rl_core.engine.cache.SLACK`)."""
SHARE = 0.9
"""Of a device's memory that another engine takes while it draws."""
ROWS = 256
"""Samples that another engine draws together, where its memory allows."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The study's engine with one model, on one device."""

    dtype: str
    weights: float
    """Its own copy [bytes]."""
    number: int
    """Bytes of a number of keys and values."""
    rows: int
    """Samples that it draws together."""
    stays: bool
    """True: its memory is there while the policy trains."""
    cache: float
    """Keys and values [bytes]."""
    eager: float
    """What one layer adds to a step [s]."""
    problem: str = ""


def engine_of(study: Study, machine: Machine, shape: Shape, lengths: Lengths, samples: float) -> Engine:
    """The study's engine when each device draws ``samples``."""
    settings = {key: value for key, value in study.engine.items() if key != "use"}
    if study.engine["use"] == "embedded":
        return _embedded(EMBEDDED | settings, machine.device, shape, lengths, samples)
    return _paged(study, machine, shape, lengths, samples)


def _embedded(settings: Mapping[str, Any], device: Device, shape: Shape, lengths: Lengths, samples: float) -> Engine:
    """It admits as many rows as would fit if each grew to its longest; what shelves have grown to they keep."""
    size = 4 if settings["dtype"] == "float32" else 2
    number = 4 if device.dense else size  # on a CPU its attention runs in float32
    row = SLACK * capacity(lengths.whole) * shape.cached * number
    room = settings["cache_gib"] * 2**30
    rows = max(1, min(settings["rows"], int(samples), int(room // row)))
    problem = ""
    if row > room:
        problem = (
            f"engine.cache_gib = {settings['cache_gib']:g} holds no sample of {lengths.whole} tokens, so the run would "
            f"stop: set it to {row / 2**30:.3g} or more, or lower max_tokens, or use another engine"
        )
    return Engine(
        settings["dtype"], size * shape.parameters, number, rows, True, min(room, rows * row), device.eager, problem
    )


def _paged(study: Study, machine: Machine, shape: Shape, lengths: Lengths, samples: float) -> Engine:
    """Another engine: it has what the trainer's weights and optimizer leave, and frees it before training."""
    dtype = study.model.dtype
    size = 4 if dtype == "float32" else 2
    weights = size * shape.parameters
    held = (1 if study.model.optimizer_offload else 3) * FLOAT32 * shape.parameters / machine.count
    room = SHARE * machine.device.memory - held - weights
    row = lengths.context * shape.cached * size
    rows = max(1, min(ROWS, int(samples), int(room // row)))
    problem = "" if room > row else f"{machine} leaves no room for an engine beside the trainer: take more devices"
    return Engine(dtype, weights, size, rows, False, min(max(room, 0), rows * row), 0, problem)


def capacity(context: int) -> int:
    """Tokens of the embedded engine's shelf for a context (:func:`m2rl_core.engine.cache.capacity`)."""
    power = max(32, 1 << (context - 1).bit_length())
    return power * 3 // 4 if power > 32 and context <= power * 3 // 4 else power


def prefill_flops(shape: Shape, tokens: float, pairs: float) -> float:
    """Of one forward pass through the layers; ``pairs`` of tokens attend, at two products of Q features each."""
    return 2 * shape.products * tokens + 4 * shape.layers * shape.q * pairs


def rollout_seconds(
    shape: Shape, lengths: Lengths, engine: Engine, machine: Machine, prompts: float, samples: float
) -> float:
    """Time to draw ``samples`` responses to ``prompts`` on all devices.

    A step draws one token for every row. It reads the weights and the rows' keys and values, or multiplies with them,
    whichever takes longer. Rows are refilled while samples wait; at the end the longest ones run alone.
    """
    device, own = machine.device, samples / machine.count
    drawn = own * lengths.mean
    steps = drawn / engine.rows + lengths.longest - lengths.mean
    read = steps * engine.weights + drawn * lengths.context * shape.cached * engine.number
    work = prefill_flops(shape, drawn, drawn * lengths.context) + 2 * shape.head * drawn
    begin = prompts / machine.count * prefill_flops(shape, lengths.prompt, lengths.prompt**2 / 2)
    flops = device.flops(engine.dtype)
    decode = max(read / (device.mbu * device.bandwidth), work / flops)
    return begin / flops + decode + steps * shape.layers * engine.eager
