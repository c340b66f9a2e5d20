"""Every random seed of the system is a hash of what it is for, so that no order of events can change it."""

from __future__ import annotations

import hashlib

__all__ = ["derive"]


def derive(*parts: int | str) -> int:
    """A seed in [0, 2⁶³) from what the randomness is for, e.g. ``derive(stage_seed, step, prompt.id)``."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
