"""SCE: weigh experts by the energy of their task vectors, tensor by tensor, and average those that agree on the sign.

Select the positions at which the experts differ most; calculate each expert's share from its energy there; erase the
entries whose sign is not that of the sum. Tensor by tensor, with task vectors δᵢ = xᵢ − b:

    wᵢ = Σ_selected δᵢ² / Σⱼ Σ_selected δⱼ²
    merged = b + Σ wᵢ δᵢ / Σ wᵢ,  both sums over the experts with sign(δᵢ) = sign(Σⱼ δⱼ), where zero counts as +
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Merger, Pass, Preset
from m2rl_core.mergers.election import elected
from m2rl_core.mergers.order_statistics import CountHigh, CountLow, Low
from m2rl_core.types import Block, Stats
from m2rl_merger_sce.calculate import Energies, Measure
from m2rl_merger_sce.parts import parts
from m2rl_merger_sce.select import Rule, selected, selected_share, variances_RN

if TYPE_CHECKING:
    from torch import Tensor

_FAINT = 1e-6
"""mergekit treats a summed energy below this, and a sum of shares, as nothing."""
_TINY = 1e-38


class Sce(Merger):
    """Two readings, or four where only some positions are selected; statistics are per tensor."""

    name: ClassVar[str] = "sce"
    reference: ClassVar[str] = "the paper's section 3.2; https://arxiv.org/abs/2408.07990"
    granularity = "block"
    needs_base = True
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            {"tau": 0.1},
            "SCE as published: the M2RL paper cites it without a τ, and its authors' configuration selects 10 % of the "
            "positions. The M2RL release selects all of them.",
        ),
        "released-code": Preset(
            {"tau": 1.0},
            "What the M2RL release ran: its τ stays at 1, so that nothing is left out of the energies. These are the "
            "defaults.",
        ),
    }

    class Config(ComponentConfig):
        tau: float = Field(1.0, gt=0.0, le=1.0)
        """τ, the share of a tensor's positions, those at which not all experts are equal, that is selected.

        Paper silent; the released code's value."""
        semantics: Literal["fuseai", "mergekit"] = "fuseai"
        """``fuseai``, the SCE authors' code and the release: selection alters only the energies; equal shares where
        they are exactly zero. ``mergekit``: what is not selected is not merged either; equal shares where the energies,
        as means over the tensor, sum to less than 1e-6."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._faint = _FAINT if config.semantics == "mergekit" else 0.0
        self._masked = config.semantics == "mergekit" and config.tau < 1.0

    def passes(self) -> Sequence[Pass]:
        if self.config.tau == 1.0:
            return [Measure()]
        return [CountHigh(variances_RN), CountLow(variances_RN, Rule(self.config.tau)), Measure()]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Sums one expert after another, so that no weight depends on the block around it."""
        import torch

        return [torch.cat([self._merged(part, stats) for part in parts(block)])]

    def _merged(self, block: Block, stats: Stats) -> Tensor:
        import torch

        energies: Energies = stats[Measure.name]
        deltas_E = block.deltas_E
        if self._masked:
            deltas_E *= selected(block, stats)
        side = elected(reduce(torch.add, deltas_E))
        kept_E = deltas_E.mul_(side).clamp_(min=0.0)  # magnitudes of what agrees
        total, share = torch.zeros_like(side), torch.zeros_like(side)
        for kept, weight in zip(kept_E, energies.weights_E(self._faint), strict=True):
            share += kept.sign().mul_(weight)
            total += kept.mul_(weight)
        return total.div_(share.clamp_(min=max(self._faint, _TINY))).mul_(side).add_(block.anchor)

    def diagnostics(self, experts: Sequence[str], stats: Stats) -> Mapping[str, float]:
        """``weight/EXPERT``, its share in the average, and ``selected``, the share of positions that were."""
        energies: Energies = stats[Measure.name]
        shares_E = energies.weights_E(self._faint)
        found = {f"weight/{name}": share for name, share in zip(experts, shares_E, strict=True)}
        low: Low | None = stats.get(CountLow.name)
        return found if low is None else {**found, "selected": selected_share(low)}


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Sce]
