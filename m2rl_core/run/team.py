"""The processes that work on one stage together: who they are, what they tell each other, files they share.

One process has no group, and every function here is then the identity. This module imports no torch: without it there
is no group.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from m2rl_core.files import atomic_folder

__all__ = ["gathered", "leads", "rank", "ranks", "shared_folder", "told", "wait"]

T = TypeVar("T")


def _group() -> Any:
    """``torch.distributed``, where this process has joined others."""
    found = sys.modules.get("torch.distributed")
    return found if found is not None and found.is_available() and found.is_initialized() else None


def rank() -> int:
    """Number of this process among those that work together."""
    return int(group.get_rank()) if (group := _group()) else 0


def ranks() -> int:
    """How many processes work together."""
    return int(group.get_world_size()) if (group := _group()) else 1


def leads() -> bool:
    """True on the one process that writes the journal and speaks to whoever watches."""
    return rank() == 0


def wait() -> None:
    """Until all have come here. Collective."""
    if group := _group():
        group.barrier()


def told(value: T) -> T:
    """The leader's ``value``, on every rank. Collective."""
    if not (group := _group()):
        return value
    held = [value]
    group.broadcast_object_list(held, src=0)
    return held[0]


def gathered(value: T) -> list[T]:
    """Everyone's ``value``, in the order of the ranks. Collective."""
    if not (group := _group()):
        return [value]
    held: list[Any] = [None] * ranks()
    group.all_gather_object(held, value)
    return held


@contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """:func:`m2rl_core.files.atomic_folder` that all ranks write into; renamed when the last has written. Collective.

    Raises:
        RunError: the disk is full.
    """
    if not leads():
        yield told(path)
        wait()  # all have written
        wait()  # it has its name
        return
    with atomic_folder(path) as folder:
        yield told(folder)
        wait()
    wait()
