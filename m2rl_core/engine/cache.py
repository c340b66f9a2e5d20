"""Where keys and values lie: rows on shelves, one shelf for each capacity.

A row stands on the shelf of the smallest capacity that holds its context, and moves up when it has grown out of it. So
attention over a shelf is one dense product over all its rows; its shape per row depends on that row's own length alone,
which bit-equality needs (padding all rows to the longest is *not* bit-equal: BLAS sums 256 and 272 products in different
orders); and nobody pays for the longest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from m2rl_core.engine.rows import Row

SLACK = 2
"""What a row holds in the worst case, in units of its own capacity: shelves grow by doubling."""


def capacity(context: int) -> int:
    """Tokens of the shelf for a context: 32, 48, 64, 96, 128, 192, ... — at most half again too many, a fifth on average."""
    power = max(32, 1 << (context - 1).bit_length())
    return power * 3 // 4 if power > 32 and context <= power * 3 // 4 else power


class Shelf:
    """The keys and values of rows of one capacity, dense in slots 0 to len(rows) - 1."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.rows: list[Row] = []
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        """Layer → (keys, values), each [slots, kv heads, tokens, head size]; slots ≥ rows."""

    def room(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values with a slot for every row; shaped after ``keys`` and ``values``, [rows, heads, .., D]."""
        old = self.layers.get(layer)
        if old is None or len(old[0]) < len(self.rows):
            slots = 1 << (len(self.rows) - 1).bit_length()
            # Zeros, because a masked value still takes part in a product, and 0 · NaN is NaN.
            new = tuple(t.new_zeros(slots, t.shape[1], self.tokens, t.shape[-1]) for t in (keys, values))
            for source, target in zip(old or (), new, strict=False):
                target[: len(source)] = source
            self.layers[layer] = (new[0], new[1])
        return self.layers[layer]

    def put(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write the first L positions of the rows in ``slots``: [slots, kv heads, L, head size]."""
        for store, new in zip(self.room(layer, keys, values), (keys, values), strict=True):
            store[slots, :, : new.shape[2]] = new

    def append(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one position of every row, [rows, kv heads, head size], and return all: [rows · kv heads, tokens, head size]."""
        count = len(self.rows)
        slots = torch.arange(count, device=positions.device)
        stores = self.room(layer, keys, values)
        for store, new in zip(stores, (keys, values), strict=True):
            store[slots, :, positions] = new
        return stores[0][:count].flatten(0, 1), stores[1][:count].flatten(0, 1)

    def move(self, slots: list[int], target: Shelf) -> None:
        """Copy the rows in ``slots`` to the end of ``target``; they are still to be removed here."""
        first = len(target.rows)
        target.rows += [self.rows[slot] for slot in slots]
        for layer, (keys, values) in self.layers.items():
            source = torch.tensor(slots, device=keys.device)
            target.put(layer, torch.arange(first, len(target.rows), device=keys.device), keys[source], values[source])

    def remove(self, slots: Sequence[int]) -> None:
        """Empty ``slots`` and fill the holes with the last rows."""
        gone = set(slots)
        count = len(self.rows) - len(gone)
        holes = [slot for slot in gone if slot < count]
        fill = [slot for slot in range(count, len(self.rows)) if slot not in gone]
        for hole, source in zip(holes, fill, strict=True):
            self.rows[hole] = self.rows[source]
        del self.rows[count:]
        for keys, values in self.layers.values() if holes else ():
            keys[holes], values[holes] = keys[fill], values[fill]


class Cache:
    """All shelves. Rows are found on them, in slot order; nothing else knows which rows are running."""

    def __init__(self) -> None:
        self.shelves: dict[int, Shelf] = {}
        self.bytes_per_token = 0
        """Of keys and values in all layers; known after the first prefill."""

    def __len__(self) -> int:
        return sum(len(shelf.rows) for shelf in self.shelves.values())

    def rows(self) -> Iterator[Row]:
        for shelf in self.shelves.values():
            yield from shelf.rows

    def filled(self):
        return [s for s in self.shelves.values() if s.rows]

    def shelf(self, context: int) -> Shelf:
        """The shelf for a context of so many tokens."""
        tokens = capacity(context)
        return self.shelves.setdefault(tokens, Shelf(tokens))

    def tidy(self) -> None:
        """Retire ended rows, move up those that have outgrown their shelf, and free shelves that stand empty."""
        for shelf in list(self.shelves.values()):
            leaving = [i for i, row in enumerate(shelf.rows) if row.finish or row.context > shelf.tokens]
            if leaving:
                grown = [slot for slot in leaving if not shelf.rows[slot].finish]
                if grown:
                    shelf.move(grown, self.shelf(shelf.tokens + 1))
                shelf.remove(leaving)

    def measure(self) -> None:
        """Note the bytes per token from whatever shelf is filled."""
        for shelf in self.shelves.values():
            tensors = [t for layer in shelf.layers.values() for t in layer]
            self.bytes_per_token = sum(t.nbytes // (t.shape[0] * t.shape[2]) for t in tensors)
