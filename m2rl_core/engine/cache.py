"""Where keys and values lie: rows on shelves, one shelf for each capacity.

A row stands on the shelf of the smallest capacity that holds its context and moves up when it has grown out of it. So
attention over a shelf is one dense product for all its rows, nobody pays for the longest row, and the shape of the
product depends on a row's own length alone. Bit-equality needs that: padding all rows to the longest is not enough, as
BLAS sums 256 and 272 products in different orders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from m2rl_core.engine.rows import Row

SLACK = 2
"""Memory that a row may cost, in units of its own capacity: shelves grow by doubling."""

Store = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [slots, kv heads, tokens, head size]."""


def capacity(context: int) -> int:
    """Tokens of the shelf for a context: 32, 48, 64, 96, 128, 192, ...; a fifth more than needed on average."""
    power = max(32, 1 << (context - 1).bit_length())
    return power * 3 // 4 if power > 32 and context <= power * 3 // 4 else power


def _slots(rows: int) -> int:
    """The next power of two, so that slots are added rarely; none for no rows."""
    return 1 << (rows - 1).bit_length() if rows else 0


class Shelf:
    """The keys and values of rows of one capacity, dense in slots 0 to len(rows) - 1."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.rows: list[Row] = []
        self.layers: dict[int, Store] = {}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for store in self.layers.values() for tensor in store)

    def put(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write the first L positions of the rows in ``slots``: [slots, kv heads, L, head size]."""
        for store, new in zip(self._room(layer, keys, values), (keys, values), strict=True):
            store[slots, :, : new.shape[2]] = new

    def append(self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Store:
        """Write one position of each row, [rows, kv heads, head size]; all of [rows · kv heads, tokens, head size].

        ``slots`` counts from 0 to rows - 1; it is made once for all layers.
        """
        rows = len(self.rows)
        stores = self._room(layer, keys, values)
        for store, new in zip(stores, (keys, values), strict=True):
            store[slots, :, positions] = new
        return stores[0][:rows].flatten(0, 1), stores[1][:rows].flatten(0, 1)

    def move(self, slots: list[int], target: Shelf) -> None:
        """Copy the rows in ``slots`` to the end of ``target``; they are still to be removed here."""
        first = len(target.rows)
        target.rows += [self.rows[slot] for slot in slots]
        for layer, (keys, values) in self.layers.items():
            theirs = torch.arange(first, len(target.rows), device=keys.device)
            target.put(layer, theirs, keys[slots], values[slots])

    def remove(self, slots: Sequence[int]) -> None:
        """Empty ``slots`` and fill the holes with the last rows."""
        gone = set(slots)
        left = len(self.rows) - len(gone)
        holes = [slot for slot in gone if slot < left]
        last = [slot for slot in range(left, len(self.rows)) if slot not in gone]
        for hole, slot in zip(holes, last, strict=True):
            self.rows[hole] = self.rows[slot]
        del self.rows[left:]
        for keys, values in self.layers.values() if holes else ():
            keys[holes], values[holes] = keys[last], values[last]

    def trim(self) -> None:
        """Give back slots that are not used."""
        slots = _slots(len(self.rows))
        for layer, (keys, values) in list(self.layers.items()):
            if not slots:
                del self.layers[layer]
            elif slots < len(keys):
                self.layers[layer] = keys[:slots].clone(), values[:slots].clone()

    def _room(self, layer: int, keys: Tensor, values: Tensor) -> Store:
        """The layer's store with a slot for every row, made for tensors like ``keys`` and ``values``."""
        store = self.layers.get(layer)
        if store is None or len(store[0]) < len(self.rows):
            self.layers[layer] = self._grown(keys, store and store[0]), self._grown(values, store and store[1])
        return self.layers[layer]

    def _grown(self, like: Tensor, old: Tensor | None) -> Tensor:
        # Zeros, because a hidden value still takes part in a product, and 0 · NaN is NaN.
        new = like.new_zeros(_slots(len(self.rows)), like.shape[1], self.tokens, like.shape[-1])
        if old is not None:
            new[: len(old)] = old
        return new


class Cache:
    """All shelves; a row is running as long as it stands on one."""

    def __init__(self) -> None:
        self.shelves: dict[int, Shelf] = {}
        self.limit = math.inf
        """Bytes above which unused slots are given back; rows are admitted so that the others stay below it."""
        self.bytes_per_token = 0
        """Of keys and values in all layers; known after the first prefill."""

    def __len__(self) -> int:
        return sum(len(shelf.rows) for shelf in self.shelves.values())

    def rows(self) -> Iterator[Row]:
        """Every row, shelf by shelf, in slot order."""
        for shelf in self.shelves.values():
            yield from shelf.rows

    def shelf(self, context: int) -> Shelf:
        """The shelf for a context of so many tokens."""
        tokens = capacity(context)
        if tokens not in self.shelves:
            self.shelves[tokens] = Shelf(tokens)
        return self.shelves[tokens]

    def tidy(self) -> None:
        """Retire ended rows and move up those that have outgrown their shelf."""
        for shelf in list(self.shelves.values()):
            leaving = [slot for slot, row in enumerate(shelf.rows) if row.finish or row.context > shelf.tokens]
            if leaving:
                grown = [slot for slot in leaving if not shelf.rows[slot].finish]
                if grown:
                    shelf.move(grown, self.shelf(shelf.tokens + 1))
                shelf.remove(leaving)
        if sum(shelf.nbytes for shelf in self.shelves.values()) > self.limit:
            for shelf in self.shelves.values():
                shelf.trim()

    def measure(self) -> None:
        """Note the bytes per token from whatever has been stored."""
        shelf = next(iter(self.shelves.values()))
        keys, _ = next(iter(shelf.layers.values()))
        self.bytes_per_token = shelf.nbytes // (len(keys) * shelf.tokens)
