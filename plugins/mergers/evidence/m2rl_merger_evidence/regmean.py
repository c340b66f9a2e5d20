"""RegMean: the linear layers whose outputs are nearest to every expert's, on the inputs that this expert saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from m2rl_core.interfaces import ComponentConfig, Merger
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

GRAM = "gram"
NEARLY_ALL = 1.0 - 1e-7
"""Largest factor of off-diagonals: a little less than 1 keeps a matrix of few inputs positive."""
ROWS = 1 << 22
"""Elements of a matrix that are solved for at once."""


class RegMean(Merger):
    """``W = Σ Wᵢ Gᵢ (Σ Gᵢ)⁻¹`` for the weight [O, I] of a linear layer; the mean for every other tensor.

    Solved as ``m + Σ (Wᵢ − m) Gᵢ (Σ Gᵢ)⁻¹`` with the mean m: the experts are close, so that this loses no digits, and
    along directions that no input ever took the result is their mean.
    """

    name: ClassVar[str] = "regmean"
    reference: ClassVar[str] = "https://arxiv.org/abs/2212.09849 section 3"
    granularity = "tensor"
    needs_base = False
    needs = frozenset({GRAM})

    class Config(ComponentConfig):
        ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
        """Factor of the Gram matrices' off-diagonals, against overfitting. The method's paper: 0.9, and 0.1 for T5."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Raises ValueError where the Gram matrices are not positive."""
        merged = block.experts_E.mean(0)
        if GRAM in block.evidence:
            gram_E, ratio = block.evidence[GRAM], min(self.config.ratio, NEARLY_ALL)
            factor = _factor(gram_E, ratio)
            step = max(1, ROWS // block.shape[1])
            for begin in range(0, block.shape[0], step):
                rows = slice(begin, begin + step)
                merged[rows] += _correction(block.experts_E[:, rows] - merged[rows], gram_E, ratio, factor)
        return [merged]


def _factor(gram_E: Tensor, ratio: float) -> Tensor:
    """Cholesky factor, float64 [I, I], of the shrunk Gram matrices' sum; inputs that were always 0 are left alone."""
    import torch

    total = gram_E.sum(0, dtype=torch.float64)
    diagonal = total.diagonal().clone()
    total *= ratio
    total.diagonal().copy_(diagonal.where(diagonal != 0, 1.0))
    factor, failed = torch.linalg.cholesky_ex(total)
    if failed:
        raise ValueError("the Gram matrices are not positive: gather them from more samples, or lower the ratio")
    return factor


def _correction(apart_E: Tensor, gram_E: Tensor, ratio: float, factor: Tensor) -> Tensor:
    """``Σ apartᵢ Gᵢ (Σ Gᵢ)⁻¹``, float32, of a few rows [E, rows, I]; off-diagonals of Gᵢ count ``ratio``."""
    import torch

    pulled = torch.zeros(apart_E.shape[1:])
    for apart, gram in zip(apart_E, gram_E, strict=True):
        pulled.addmm_(apart, gram, alpha=ratio).addcmul_(apart, gram.diagonal(), value=1.0 - ratio)
    return torch.cholesky_solve(pulled.double().T, factor).T.float()
