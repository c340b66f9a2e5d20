"""Shelves against a dictionary that keeps every row's keys and values by itself."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from m2rl_core.engine.cache import Cache, Shelf, capacity
from m2rl_core.engine.rows import Job, Row
from m2rl_core.types import Sampling

HEADS, KEY, VALUE = 2, 4, 3


@pytest.mark.parametrize(
    ("context", "tokens"),
    [(1, 32), (32, 32), (33, 48), (48, 48), (49, 64), (64, 64), (65, 96), (97, 128), (129, 192), (1025, 1536)],
)
def test_capacities(context: int, tokens: int) -> None:
    assert capacity(context) == tokens
    assert capacity(tokens) == tokens


def test_a_capacity_wastes_at_most_a_third_and_vectors_have_no_remainder() -> None:
    for context in range(33, 5000):
        assert context <= capacity(context) < 1.5 * context
        assert capacity(context) % 16 == 0


def states(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, KEY), torch.randn(*shape, VALUE)


class Model:
    """What the cache should hold: row → (keys, values), each [heads, tokens, size], for two layers."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.cache = Cache()
        self.rows: dict[Row, list[tuple[Tensor, Tensor]]] = {}

    def admit(self) -> None:
        length = self.draw.choice([1, 20, 31, 32, 47, 60])
        rows = Job([0] * length, Sampling(max_tokens=99), self.draw.randrange(1, 4)).rows
        shelf = self.cache.shelf(length + 1)
        slots = torch.arange(len(shelf.rows), len(shelf.rows) + len(rows))
        shelf.rows += rows
        for layer in (0, 1):
            keys, values = states(len(rows), HEADS, length)
            shelf.put(layer, slots, keys, values)
            for row, key, value in zip(rows, keys, values, strict=True):
                self.rows.setdefault(row, []).append((key, value))
        for row in rows:
            row.add(0, 0.0, 0, 1000)

    def step(self) -> None:
        for shelf in self.cache.shelves.values():
            if shelf.rows:
                self.append(shelf)
        for row in list(self.rows):
            row.add(0, 0.0, 0, 1000)
            if self.draw.random() < 0.05:
                row.finish = "stop"
                del self.rows[row]
        self.cache.tidy()

    def append(self, shelf: Shelf) -> None:
        positions = torch.tensor([row.context - 1 for row in shelf.rows])
        for layer in (0, 1):
            keys, values = states(len(shelf.rows), HEADS)
            shelf.append(layer, torch.arange(len(shelf.rows)), positions, keys, values)
            for row, key, value in zip(shelf.rows, keys, values, strict=True):
                keys_L, values_L = self.rows[row][layer]
                self.rows[row][layer] = torch.cat([keys_L, key[:, None]], 1), torch.cat([values_L, value[:, None]], 1)

    def check(self) -> None:
        assert set(self.cache.rows()) == set(self.rows)
        assert len(self.cache) == len(self.rows)
        for tokens, shelf in self.cache.shelves.items():
            for slot, row in enumerate(shelf.rows):
                assert capacity(row.context) == tokens
                for layer, pair in enumerate(self.rows[row]):
                    for store, expected in zip(shelf.layers[layer], pair, strict=True):
                        assert torch.equal(store[slot, :, : expected.shape[1]], expected)


@pytest.mark.parametrize("limit", [float("inf"), 20_000.0])
def test_rows_keep_their_keys_and_values_while_they_move(limit: float) -> None:
    torch.manual_seed(0)
    model = Model(seed=1)
    model.cache.limit = limit
    for _ in range(70):
        if model.draw.random() < 0.5:
            model.admit()
        model.step()
        model.check()
    assert {32, 48, 64, 96} <= set(model.cache.shelves)


def test_memory_is_given_back_above_the_limit_only() -> None:
    cache = Cache()
    shelf = cache.shelf(10)
    shelf.rows = Job([0] * 9, Sampling(max_tokens=9), 5).rows
    for layer in (0, 1):
        shelf.put(layer, torch.arange(5), *states(5, HEADS, 9))
    per_token = 2 * HEADS * (KEY + VALUE) * 4
    cache.measure()
    assert cache.bytes_per_token == per_token
    assert shelf.nbytes == 8 * 32 * per_token
    for row in shelf.rows[1:]:
        row.finish = "stop"
    cache.tidy()
    assert shelf.nbytes == 8 * 32 * per_token
    cache.limit = 2 * 32 * per_token
    cache.tidy()
    assert shelf.nbytes == 32 * per_token
    shelf.rows[0].finish = "abort"
    cache.limit = 0
    cache.tidy()
    assert shelf.nbytes == 0


def test_a_stale_slot_holds_no_nan() -> None:
    shelf = Shelf(32)
    shelf.rows = Job([0], Sampling(max_tokens=9), 3).rows
    shelf.put(0, torch.arange(3), *states(3, HEADS, 1))
    assert all(torch.isfinite(store).all() for store in shelf.layers[0])
