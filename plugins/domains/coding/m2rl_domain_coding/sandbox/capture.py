"""What a program writes, read as it comes, and kept within bounds."""

from __future__ import annotations

import os

__all__ = ["Capture"]

_CHUNK = 1 << 16


class Capture:
    """The reading end of a pipe, and what came so far."""

    def __init__(self, handle: int, limit: int, keep: int) -> None:
        self.handle, self.limit, self.keep = handle, limit, keep
        self.data = bytearray()
        self.total = 0

    def read(self) -> bool:
        """Take what there is; whether there may be more."""
        try:
            chunk = os.read(self.handle, _CHUNK)
        except BlockingIOError:
            return True
        self.total += len(chunk)
        self.data += chunk
        del self.data[: -self.keep]
        return bool(chunk)

    @property
    def excessive(self) -> bool:
        """More than the limit has come."""
        return self.total > self.limit
