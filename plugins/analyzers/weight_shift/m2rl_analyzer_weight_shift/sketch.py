"""An orthogonal random projection of weights to 256 dimensions, at the cost of one small product per weight.

A block of weights is cut into 256 runs of equal length. Every weight gets a random sign; the sum of a run is one of 256
coordinates, in an order drawn for each block. The rows of this projection have disjoint supports of one size, so they
are orthogonal and equally long: up to a factor, which cosines do not see, weights are projected onto a random subspace.

The cosine of two projected vectors has a standard error of (1 − cos²) / √256, at most 0.06, as long as many
coordinates carry them: signs cannot tell apart the weights of one run, so a vector that lies within few rows of a
matrix is projected with more noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from m2rl_analyzer_weight_shift.tally import DIM
from m2rl_core.seeding import derive

BLOCK = 1 << 16
"""Most weights in a block."""

_POOL, _ORDERS = 1 << 20, 256


def padded(count: int) -> int:
    """Length of a block of ``count`` weights whose last runs are filled up with zeros."""
    return -(-count // DIM) * DIM


class Projection:
    """One random projection, of any number of weights.

    Args:
        seed: decides signs and orders.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        source = torch.Generator().manual_seed(derive("weight-shift signs", seed))
        self._signs = torch.randint(2, (_POOL + BLOCK,), generator=source).mul_(2).sub_(1).float()
        self._orders = torch.stack([torch.randperm(DIM, generator=source) for _ in range(_ORDERS)])

    def signs(self, width: int, name: str, index: int) -> Tensor:
        """±1 [width] for one block of a tensor, cut at random from a pool: drawing new ones would cost more than all
        else."""
        start = derive("weight-shift cut", self._seed, name, index) % _POOL
        return self._signs[start : start + width]

    def within(self, signed_EN: Tensor, mask_EN: Tensor, name: str, index: int) -> Tensor:
        """Projections of vector i where mask j is 1, [E, E, 256]; vectors were multiplied with :meth:`signs`."""
        runs_DEL, masks_DEL = (each.view(len(each), DIM, -1).transpose(0, 1) for each in (signed_EN, mask_EN))
        found_DEE = torch.bmm(runs_DEL, masks_DEL.transpose(1, 2))
        order = self._orders[derive("weight-shift order", self._seed, name, index) % _ORDERS]
        return found_DEE[order].permute(1, 2, 0)
