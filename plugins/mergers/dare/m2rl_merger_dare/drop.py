"""Drop and rescale: which entries of a task vector survive depends on the seed, the expert and their place alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from m2rl_core.interfaces import Pass, SkippablePass
from m2rl_core.mergers.each_expert import numbers_E
from m2rl_core.seeding import derive
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

Mask = np.typing.NDArray[np.bool_]

RUN = 1 << 18
"""Elements that one random stream serves, from a multiple of it on."""
FIRST, REST = 1 << 8, 1 << 24
"""An entry has 32 random bits: 8 of them decide for most, so that the other 24 are drawn only where they matter."""


@dataclass(frozen=True)
class Dropping:
    """How task vectors are thinned out."""

    rate: float | Sequence[float]
    """Of all experts, or of each."""
    rescale: Literal["expected", "l1", "none"]
    seed: int

    def __call__(self, block: Block, stats: Stats) -> Block:
        """The block with experts that moved in a few places only, and further there.

        Its tensors are overwritten by this thread's next one.
        """
        import torch

        factors_E = self._factors(len(block.experts_E), stats)
        experts_E = _room(block.experts_E)
        for out, expert, kept, factor in zip(experts_E, block.experts_E, self.kept_E(block), factors_E, strict=True):
            torch.sub(expert, block.anchor, out=out)
            np.multiply(out.numpy(), kept, out=out.numpy())  # masks are faster there
            out.mul_(factor).add_(block.anchor)
        return replace(block, experts_E=experts_E)

    def kept_E(self, block: Block) -> Iterator[Mask]:
        """Which entries of each expert survive, of ``block.shape``; one expert at a time."""
        for expert, rate in zip(block.names_E, self._rates(len(block.names_E)), strict=True):
            yield self.kept(block, expert, rate)

    def kept(self, block: Block, expert: str, rate: float) -> Mask:
        """Which entries of one expert survive, of ``block.shape``."""
        first, size = block.offset, block.experts_E[0].numel()
        runs = [self._run(expert, block.name, run, rate) for run in range(first // RUN, -(-(first + size) // RUN))]
        start = first % RUN
        found = runs[0] if len(runs) == 1 else np.concatenate(runs)
        return found[start : start + size].reshape(block.shape)

    def _run(self, expert: str, tensor: str, run: int, rate: float) -> Mask:
        """Of one random stream: an entry survives where its 32 random bits reach the rate."""
        stream = np.random.SFC64(derive(self.seed, "dare", expert, tensor, run))
        first, rest = divmod(round(rate * FIRST * REST), REST)
        bits = stream.random_raw(RUN // 8).view(np.uint8)
        kept: Mask = bits > first
        close = np.flatnonzero(bits == first)
        kept[close] = stream.random_raw(len(close)) % REST >= rest
        return kept

    def _factors(self, experts: int, stats: Stats) -> list[float]:
        """What the survivors of each expert are multiplied with."""
        if self.rescale == "l1":
            sums: list[tuple[float, float]] = stats[Norms.name]
            return [before / after if after else 1.0 for before, after in sums]
        return [1.0 if self.rescale == "none" else 1.0 / (1.0 - rate) for rate in self._rates(experts)]

    def _rates(self, experts: int) -> Sequence[float]:
        return numbers_E(self.rate, experts, "rates")


_rooms = threading.local()


def _room(like: Tensor) -> Tensor:
    """Uninitialised, in memory that this thread uses again: new pages would take as long as what is done to them."""
    import torch

    if not hasattr(_rooms, "values") or _rooms.values.numel() < like.numel():
        _rooms.values = torch.empty(like.numel(), dtype=torch.float32)
    values: Tensor = _rooms.values
    return values[: like.numel()].view(like.shape)


def apart(values: Tensor, room: Tensor) -> Tensor:
    """``values``, copied where they lie in ``room``: in a sweep they wait until all of its outputs are made."""
    return values.clone() if values.untyped_storage().data_ptr() == room.untyped_storage().data_ptr() else values


@dataclass
class Norms:
    """L1 norms of a tensor's task vectors before and after the drop, float64; a reading of its own."""

    dropping: Dropping
    name: str = "norms of dare"
    scope: Literal["model", "tensor"] = "tensor"

    def measure(self, block: Block, stats: Stats) -> list[tuple[float, float]]:
        import torch

        found = []
        for delta, kept in zip(block.deltas_E.abs_(), self.dropping.kept_E(block), strict=True):
            before = delta.sum(dtype=torch.float64).item()
            np.multiply(delta.numpy(), kept, out=delta.numpy())
            found.append((before, delta.sum(dtype=torch.float64).item()))
        return found

    def combine(self, left: list[tuple[float, float]], right: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(a + c, b + d) for (a, b), (c, d) in zip(left, right, strict=True)]


@dataclass
class Thinned:
    """Another merger's pass, which sees experts after the drop."""

    inner: Pass
    dropping: Dropping

    def __post_init__(self) -> None:
        self.name: str = self.inner.name
        self.scope: Literal["model", "tensor"] = self.inner.scope

    def measure(self, block: Block, stats: Stats) -> Any:
        return self.inner.measure(self.dropping(block, stats), stats)

    def known(self, stats: Stats) -> Any | None:
        return self.inner.known(stats) if isinstance(self.inner, SkippablePass) else None

    def combine(self, left: Any, right: Any) -> Any:
        return self.inner.combine(left, right)
