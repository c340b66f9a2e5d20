"""Weights in shared memory, read through a second handle."""

from __future__ import annotations

import os

import torch

from m2rl_core.weights import SharedWeights


def test_what_is_written_is_read() -> None:
    torch.manual_seed(0)
    mine = SharedWeights()
    theirs = SharedWeights(os.dup(mine.handle))
    for size in (3, 50, 7):  # the second is larger, the third smaller again
        tensors = {
            "a.weight": torch.randn(size, 5),
            "half": torch.randn(size).bfloat16(),
            "number": torch.tensor(2.5, dtype=torch.float64),
            "turned": torch.randn(4, size).T,
        }
        places = mine.write(tensors.items())
        found = dict(theirs.read(places))
        assert list(found) == list(tensors)
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
        assert all(place.offset % 64 == 0 for place in places)
    mine.close()
    theirs.close()


def test_the_memory_is_shared() -> None:
    mine = SharedWeights()
    theirs = SharedWeights(os.dup(mine.handle))
    [(_, seen)] = theirs.read(mine.write([("x", torch.zeros(8))]))
    mine.write([("x", torch.ones(8))])
    assert torch.equal(seen, torch.ones(8))
    mine.close()
    theirs.close()
    assert torch.equal(seen, torch.ones(8)), "it lives as long as somebody looks"
