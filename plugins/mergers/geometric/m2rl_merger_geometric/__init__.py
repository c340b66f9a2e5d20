"""Mergers along angles: SLERP, the Karcher mean and Model Stock.

Each result lies in the span of its inputs. So one pass gathers the inner products of a tensor's inputs, whose size is
that of a small square; they give one coefficient per input, and the merge is a weighted sum over blocks of any size.
"""

from __future__ import annotations

from collections.abc import Iterable

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import Merger
from m2rl_merger_geometric.karcher import Karcher
from m2rl_merger_geometric.slerp import Slerp
from m2rl_merger_geometric.stock import ModelStock

__all__ = ["Karcher", "ModelStock", "Slerp"]


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Slerp, Karcher, ModelStock]
