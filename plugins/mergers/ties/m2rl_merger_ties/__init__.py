"""TIES: trim task vectors to their largest entries, elect a sign for each weight, and average those that agree.

With task vectors δᵢ = xᵢ − b, of which δ̂ᵢ keeps the entries whose magnitude reaches the expert's threshold:

    γ = sign(Σ wᵢ δ̂ᵢ)
    merged = b + λ Σ wᵢ δ̂ᵢ / Σ wᵢ,  both sums over the experts with sign(δ̂ᵢ) = γ
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Merger, Pass, Preset
from m2rl_core.mergers.density import density_remarks, moved_E, tell_density
from m2rl_core.mergers.each_expert import Each, each_or_all, numbers_E
from m2rl_core.mergers.election import elected
from m2rl_core.mergers.order_statistics import CountHigh, CountLow, High, Low, count_high, magnitudes_EN
from m2rl_core.mergers.sums import weighted_sum
from m2rl_core.types import Block, Stats
from m2rl_merger_ties.trim import Rule, Semantics, below_E, densities_E

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-38


class Ties(Merger):
    """Four readings, two where all thresholds are zero; by mergekit's rule for cancellations three, or two."""

    name: ClassVar[str] = "ties"
    reference: ClassVar[str] = "the paper's section 3.2; https://arxiv.org/abs/2306.01708 section 4"
    granularity = "block"
    needs_base = True
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            {"density": 0.2, "scope": "model", "semantics": "original", "scale": 1.0},
            "The share that is kept and λ are the release's, since the paper names neither; the trim is over the whole "
            "model, as in the method's own paper. These are the defaults.",
        ),
        "released-code": Preset(
            {"density": 0.2, "scope": "model", "semantics": "original", "scale": 1.0},
            "What the M2RL release ran: a mask rate of 0.8 over the whole model, λ = 1. The same numbers as `paper`.",
        ),
    }

    class Config(ComponentConfig):
        density: Each[Annotated[float, Field(gt=0.0, le=1.0)]] = 0.2
        """Share of each task vector's entries that is kept, those with the largest magnitudes; or a list of one share
        per expert, in their order. Paper silent; the released code's value, and that of the method's paper."""
        scale: float = 1.0
        """λ. Paper silent; the released code's value."""
        weights: list[float] | None = None
        """A factor for each expert, in their order, before signs are elected. Default: 1 each. An expert of factor 0
        elects nothing and counts nothing; none may be negative."""
        scope: Literal["model", "tensor"] = "model"
        """What the share is of: ``model``, as in the method's paper, or each ``tensor`` by itself, as in mergekit."""
        semantics: Semantics = "original"
        """Of entries that cancel exactly, and of the rank of the threshold. ``original``: the sign that most weights
        of the scope have, and nothing in a draw; rank ⌊n·(1−density)⌋ from below. ``mergekit``: plus;
        rank max(1, ⌊n·density⌋) from above."""
        aggregate: Literal["mean", "sum"] = "mean"
        """Of the entries that agree. ``sum`` is what mergekit's dare_ties does."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, experts: Sequence[str]) -> None:
        """As :meth:`~m2rl_core.interfaces.Merger.check`: a factor and a density per expert, no factor negative."""
        numbers_E(self.config.density, len(experts), "densities")
        if (least := min(self._weights(len(experts)))) < 0:
            raise ValueError(f"weights cannot be negative, and one is {least}: it would elect the wrong sign")

    def passes(self) -> Sequence[Pass]:
        config, weights = self.config, tuple(self.config.weights or ())
        rule, scope = Rule(each_or_all(config.density), config.semantics), config.scope
        original = config.semantics == "original"
        trim: list[Pass] = []  # nothing to find out where everything is kept
        if not self._keeps_all:
            first = CountHighOfAll(scope, weights) if original else CountHigh(magnitudes_EN, scope)
            trim = [first, CountLow(magnitudes_EN, rule, scope)]
        return [*trim, Majority(scope, weights)] if original else trim

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Sums one expert after another, so that no weight depends on the block around it."""
        import torch

        weights = self._weights(len(block.experts_E))
        deltas = list(trimmed(block, stats, weights))
        if self._keeps_all:
            tell_density(block, moved_E(block))
        side = elected(_summed([deltas[0].clone(), *deltas[1:]]), stats.get(Majority.name, 1))
        total, share = torch.zeros_like(side), torch.zeros_like(side)
        for delta, weight in zip(deltas, weights, strict=True):
            agreeing = delta.mul_(side).clamp_(min=0.0)  # magnitudes of what agrees
            total += agreeing
            share.add_(agreeing.sign_(), alpha=weight)
        if self.config.aggregate == "mean":
            total.div_(share.clamp_(min=_TINY))
        return [total.mul_(side).mul_(self.config.scale).add_(block.anchor)]

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """``density/EXPERT``: the share of its entries that survived the trim, zeros left out.

        Told of each block instead where nothing is trimmed, and so nothing was counted.
        """
        if self._keeps_all:
            return {}
        shares_E = densities_E(stats[CountLow.name])
        return {f"density/{name}": share for name, share in zip(experts, shares_E, strict=True)}

    def remarks(self, experts: Sequence[str], found: Mapping[str, float]) -> Iterator[str]:
        """Where what was kept is another share than was asked for, and where nothing is trimmed on purpose."""
        if not self._keeps_all:
            yield from density_remarks(
                experts, numbers_E(self.config.density, len(experts), "densities"), found, "trimming"
            )
        elif self.config.aggregate == "mean":  # the sum without a trim is mergekit's dare_ties
            yield "A density of 1 trims nothing: TIES only elects signs and averages the entries that agree."

    @property
    def _keeps_all(self) -> bool:
        density = self.config.density
        return density == 1.0 if isinstance(density, float) else set(density) == {1.0}

    def _weights(self, experts: int) -> Sequence[float]:
        return numbers_E(1.0 if self.config.weights is None else self.config.weights, experts, "weights")


def trimmed(block: Block, stats: Stats, weights: Sequence[float]) -> Iterator[Tensor]:
    """The experts' task vectors, weighted, without their small entries; one at a time."""
    from torch.nn.functional import hardshrink

    low: Low | None = stats.get(CountLow.name)
    floors_E = [0.0] * len(block.experts_E) if low is None else below_E(low)
    for expert, below, weight in zip(block.experts_E, floors_E, weights, strict=True):
        delta = expert - block.anchor
        if below > 0.0:
            delta = hardshrink(delta, below)  # keeps what is larger; a tenth of the time of a comparison and a product
        yield delta if weight == 1.0 else delta.mul_(weight)


def _summed(deltas: Iterable[Tensor]) -> Tensor:
    """Added up in the first of them."""
    each = iter(deltas)
    total = next(each)
    for delta in each:
        total += delta
    return total


def _majority(total: Tensor) -> int:
    """How many more entries go up than down."""
    import numpy as np

    entries = total.numpy()  # NumPy compares and counts several times as fast as torch does on a CPU
    return int(np.count_nonzero(entries > 0)) - int(np.count_nonzero(entries < 0))


@dataclass
class Majority:
    """How many more weights go up than down, of all whose trimmed task vectors do not cancel; a third reading."""

    scope: Literal["model", "tensor"]
    weights: tuple[float, ...]
    name: str = "majority"

    def known(self, stats: Stats) -> int | None:
        """Where thresholds of zero trim nothing, it is that of all entries."""
        low: Low | None = stats.get(CountLow.name)
        if low is None or any(below_E(low)):
            return None
        high: HighOfAll = stats[CountHigh.name]
        return high.majority

    def measure(self, block: Block, stats: Stats) -> int:
        weights = numbers_E(self.weights or 1.0, len(block.experts_E), "weights")
        return _majority(_summed(trimmed(block, stats, weights)))

    def combine(self, left: int, right: int) -> int:
        return left + right


@dataclass(frozen=True)
class HighOfAll(High):
    """High halves, and the majority if nothing is trimmed."""

    majority: int = 0


@dataclass
class CountHighOfAll:
    """The first reading, which looks ahead: behind thresholds of zero a third one would find what this one has.

    They are zero of bfloat16 experts that moved in few places, and behind DARE.
    """

    scope: Literal["model", "tensor"]
    weights: tuple[float, ...]
    name: str = CountHigh.name

    def measure(self, block: Block, stats: Stats) -> HighOfAll:
        deltas_EN = block.deltas_E.flatten(1)
        majority = _majority(weighted_sum(deltas_EN, numbers_E(self.weights or 1.0, len(deltas_EN), "weights")))
        high = count_high(deltas_EN.abs_())
        return HighOfAll(high.counts_RB, high.nonzero_R, majority=majority)

    def combine(self, left: HighOfAll, right: HighOfAll) -> HighOfAll:
        high = CountHigh(magnitudes_EN).combine(left, right)
        return HighOfAll(high.counts_RB, high.nonzero_R, majority=left.majority + right.majority)


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Ties]
