"""How much of each task vector counts in a merge: told as ``density/EXPERT``, whatever the merger.

An entry counts that is not zero and was neither trimmed nor dropped. Between bfloat16 checkpoints this is another share
than was asked for: many entries never moved, and many others have one and the same magnitude.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from m2rl_core.types import Block

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["density_remarks", "moved_E", "tell_density"]

_LEAST, _MOST = 0.99, 1.25
"""Times the share that was asked for, beyond which there is something to remark: a trim falls short by more than
rounding only where its threshold is zero, and exceeds by as many entries as equal the threshold."""


def moved_E(block: Block) -> Iterator[Tensor]:
    """Where each expert differs from the base, bool of the block's shape; one at a time."""
    import torch

    for expert in block.experts_E:
        yield torch.from_numpy(expert.numpy() != block.anchor.numpy())  # NumPy compares several times as fast


def tell_density(block: Block, values_E: Iterable[Tensor]) -> None:
    """Tell the share of entries that are not zero, unless it was told of this block before.

    Args:
        block: that is merged.
        values_E: of any type and the block's size, one per expert: what is left of the task vectors.

    A block without names is one of which nobody asks.
    """
    import numpy as np

    for name, values in zip(block.names_E, values_E, strict=bool(block.names_E)):
        block.told.setdefault(f"density/{name}", np.count_nonzero(values.numpy()) / max(1, values.numel()))


def density_remarks(
    experts: Sequence[str], asked_E: Sequence[float], found: Mapping[str, float], verb: str
) -> Iterator[str]:
    """A sentence for each expert of which a trim left another share than was asked for.

    Args:
        asked_E: shares of the entries that were to be kept.
        found: what was told, with ``density/EXPERT``.
        verb: what was done, as ``trimming``.
    """
    for name, asked in zip(experts, asked_E, strict=True):
        kept = found.get(f"density/{name}", asked)
        if kept < _LEAST * asked:
            yield (
                f"Expert '{name}': {verb} to a density of {asked:g} has left {kept:.1%}, for no more of what came to "
                "it was not zero: it took away little, or nothing."
            )
        elif kept > _MOST * asked:
            yield (
                f"Expert '{name}': {verb} to a density of {asked:g} has left {kept:.1%}, for many entries have the "
                "very magnitude of the threshold, as is common in bfloat16."
            )
