"""The descriptors that connect a program with the outside, and what is said on them."""

from __future__ import annotations

import contextlib
import os
import struct

__all__ = ["ALL", "HANDLES", "LENGTH", "STARTED", "arrange", "excuse", "read", "started"]

HANDLES = ("payload", "stdin", "stdout", "stderr", "status", "result")
"""What comes with a program, in this order."""
STARTED = b"started"
"""What ``status`` says before the first line of a program runs; or ``!`` and what went wrong. It is closed then."""
LENGTH = struct.Struct(">I")
"""In front of the JSON text that a call returned, on ``result``."""
ALL = 1 << 20
"""More than any descriptor."""


def read(handle: int) -> bytes:
    """All of a file."""
    with open(handle, "rb", closefd=False) as file:
        return file.read()


def arrange(kept: list[int]) -> list[int]:
    """Move descriptors to 0, 1, 2 …, close all others, and return those after the standard streams."""
    spare = max(len(kept), *kept) + 1
    moved = [os.dup2(handle, spare + place) for place, handle in enumerate(kept)]
    for place, handle in enumerate(moved):
        os.dup2(handle, place, inheritable=place < 3)
    os.closerange(len(kept), ALL)
    return list(range(3, len(kept)))


def started(status: int) -> None:
    """Everything is in place; nobody can say so any more afterwards."""
    os.write(status, STARTED)
    os.close(status)


def excuse(status: int, error: BaseException) -> None:
    """Say why no program has run."""
    with contextlib.suppress(OSError):
        os.write(status, f"!{type(error).__name__}: {error}".encode())
