"""The blend of supervised fine-tuning: many rows from several sources, in little memory.

The sources are read once, or twice where they are sampled, and what is kept of them is written to a folder. From there
any conversation of any epoch is read by its place: which one comes when is computed (:mod:`.permutation`), not held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

from m2rl_core.blend.parts import Part, Tally, Told, prepared, read_again
from m2rl_core.blend.permutation import permuted
from m2rl_core.config import BlendSource
from m2rl_core.files import make_folder, sweep
from m2rl_core.seeding import derive
from m2rl_core.types import Conversation

__all__ = ["BLEND", "Blend", "Part", "Tally", "is_materialised", "materialised", "permuted"]

BLEND = "blend"
"""The folder of a stage that holds its blend."""


def _silent(text: str) -> None:
    """Progress that nobody watches."""


class Blend:
    """All conversations of one epoch, by their places in any epoch."""

    def __init__(self, parts: list[Part], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def batch(self, step: int, size: int, epoch: int) -> list[Conversation]:
        """The conversations of update ``step``: ``size`` of them, ``epoch`` in every epoch.

        Every epoch is shuffled anew by a hash of (seed, epoch); of one shorter than the blend, the end is left out.
        """
        return [self._at(*divmod(place, epoch)) for place in range(step * size, (step + 1) * size)]

    def _at(self, epoch: int, place: int) -> Conversation:
        slot = permuted(place, len(self), derive(self.seed, "blend", epoch))
        which = bisect_right(self._ends, slot)
        part, number = self.parts[which], slot - (self._ends[which] - len(self.parts[which]))
        row = part.row(number)
        return Conversation(f"{part.name}/{number:09d}", part.name, tuple(row["messages"]), tuple(row.get("tools", ())))


def is_materialised(folder: Path, sources: Mapping[str, BlendSource], seed: int) -> bool:
    """True where :func:`materialised` would find everything."""
    return all(read_again(folder, name, each, _seed(seed, name)) for name, each in sources.items())


def _seed(seed: int, name: str) -> int:
    return derive(seed, "blend", name)


def materialised(folder: Path, sources: Mapping[str, BlendSource], seed: int, tell: Told = _silent) -> Blend:
    """The blend of ``sources`` in ``folder``; what is there already is kept.

    Args:
        seed: of the stage: it decides which rows are sampled, and the order of all.

    Raises:
        DataError: a source that cannot be read, or has too few usable rows; it is named.
        RunError: the disk is full, or ``folder`` is no place for one.
    """
    make_folder(folder)
    sweep(folder)
    parts = [prepared(folder, name, each, _seed(seed, name), tell) for name, each in sources.items()]
    return Blend(parts, seed)
