"""Removes control groups from inside, when nobody else is left to do it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Group", "groups", "vacate"]

_TRIES, _PAUSE = 40, 0.05  # the kernel needs a moment to let go of what has ended


class Group(NamedTuple):
    """A control group, by a way to it that a change of the root does not close."""

    above: int
    """Descriptor of the folder that it is in."""
    name: str


def groups(folders: Sequence[str]) -> list[Group]:
    """For :func:`vacate`, later."""
    return [Group(os.open(os.path.dirname(each), os.O_RDONLY), os.path.basename(each)) for each in folders]


def vacate(left: Sequence[Group]) -> None:
    """Go back to where this process came from, and remove the groups; what stays is for the next sweep."""
    for above, name in left:
        with contextlib.suppress(OSError):
            joins = os.open("cgroup.procs", os.O_WRONLY, dir_fd=above)
            os.write(joins, b"0")
            os.close(joins)
        for _ in range(_TRIES):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=above)
            if not os.access(name, os.F_OK, dir_fd=above):
                break
            time.sleep(_PAUSE)
