"""A shuffled order that needs no memory: which of ``size`` things comes at a place follows from a hash alone."""

from __future__ import annotations

import struct
from hashlib import blake2b

__all__ = ["permuted"]

ROUNDS = 6


def permuted(place: int, size: int, seed: int) -> int:
    """The number, 0 to ``size`` − 1, at ``place`` of the order that ``seed`` stands for; one number for each place.

    A Feistel network over the next power of four, walked until it ends within ``size`` (Black and Rogaway, "Ciphers
    with arbitrary finite domains", https://doi.org/10.1007/3-540-45760-7_9).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, key = (1 << half) - 1, struct.pack("<Q", seed & (1 << 64) - 1)
    while True:
        left, right = place >> half, place & mask
        for number in range(ROUNDS):
            digest = blake2b(struct.pack("<BQ", number, right), digest_size=8, key=key).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        place = left << half | right
        if place < size:
            return place
