"""What to change where a stage does not fit its devices; every remedy is tried by the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from m2rl_core.estimate.device import Machine
from m2rl_core.estimate.load import Load
from m2rl_core.estimate.memory import peak

__all__ = ["advice"]

MOST = 1024
"""Devices that are tried."""


def advice(load: Load, longest: int, machine: Machine, *, embedded: bool) -> str:
    """The fewest changes, in a fixed order, with which a stage fits; nothing where it fits already.

    Args:
        longest: tokens of the longest sequence, which ``tokens_per_device`` must hold.
        embedded: the engine is the core's own, whose ``dtype`` is known.
    """
    room, needed = machine.device.memory, peak(load).total
    if needed <= room:
        return ""
    for changes, changed in _changes(load, longest, machine, embedded):
        if (total := peak(changed).total) <= room:
            return (
                f"{_gb(needed)} on each device, which has {_gb(room)}. It fits ({_gb(total)}) with {', '.join(changes)}"
            )
    return f"{_gb(needed)} on each device, which has {_gb(room)}, and no setting makes it fit"


def _changes(load: Load, longest: int, machine: Machine, embedded: bool) -> Iterator[tuple[list[str], Load]]:
    """Settings first, one after the other; then as many settings with twice the devices, and so on."""
    devices = machine.count
    while devices <= MOST:
        changed = replace(load, devices=devices)
        changes = [] if devices == machine.count else [f"--device {machine.device.name}x{devices}"]
        yield changes, changed
        for text, after in _remedies(changed, longest, embedded):
            if peak(after).total < peak(changed).total:
                changes, changed = [*changes, text], after
                yield changes, changed
        devices *= 2


def _remedies(load: Load, longest: int, embedded: bool) -> Iterator[tuple[str, Load]]:
    """Each on top of those before it."""
    load = replace(load, checkpointing=True)
    yield "model.activation_checkpointing=true", load
    if embedded:
        load = replace(load, engine=min(load.engine, 2 * load.shape.parameters))
        yield "engine.dtype=bfloat16", load
    load = replace(load, tokens=min(load.tokens, longest))
    yield f"tokens_per_device={longest}", load
    if not load.cpu:
        yield "model.optimizer_offload=true", replace(load, offload=True)


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
