"""WUDI: a task vector that interferes least with each expert's own, found by gradient descent, without any data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from m2rl_core.interfaces import ComponentConfig, Merger
from m2rl_core.types import Block, Stats

if TYPE_CHECKING:
    from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8
"""Adam's. Written out below: the optimizers of torch import 200 MB of compiler."""
ROWS = 1 << 20
"""Elements of a matrix that are descended at once."""


class Wudi(Merger):
    """Per matrix, Adam from ``τ = Σ δᵢ`` on ``Σ ‖(τ − δᵢ) δᵢᵀ‖² / ‖δᵢ‖²``; other tensors: the mean.

    The loss is ``Σ tr((τ − δᵢ) Gᵢ (τ − δᵢ)ᵀ)`` with ``Gᵢ = δᵢᵀδᵢ / ‖δᵢ‖²``: its slope ``2 (τ Σ Gᵢ − Σ δᵢ Gᵢ)`` needs no
    expert any more, and that of a row of τ no other row. So memory holds the inputs, the result, two squares [I, I] and
    Adam's state of a few rows, and a step costs the same for any number of experts.
    """

    name: ClassVar[str] = "wudi"
    reference: ClassVar[str] = "https://arxiv.org/abs/2503.08099 section 3"
    granularity = "tensor"
    needs_base = True

    class Config(ComponentConfig):
        steps: PositiveInt = 300
        """Of Adam. The method's paper."""
        lr: PositiveFloat = 1e-5
        """The method's paper. A weight moves by at most about ``steps`` × ``lr``."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        """Raises ValueError without a base."""
        if len(block.shape) != 2:
            return [block.experts_E.mean(0)]
        squares, merged = _pulls(block)
        for rows in _rows(block.shape):
            task = block.experts_E[:, rows].sum(0).sub_(block.anchor[rows], alpha=len(block.experts_E))
            self._descend(task, squares, merged[rows])
            merged[rows] = task.add_(block.anchor[rows])
        return [merged]

    def _descend(self, task: Tensor, squares: Tensor, pull: Tensor) -> None:
        """Move a few rows of τ, on a GPU where there is one."""
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        here, squares, pull = (values.to(device) for values in (task, squares, pull))
        slope, first, second = (torch.zeros_like(here) for _ in range(3))
        for step in range(1, self.config.steps + 1):
            torch.mm(here, squares, out=slope).sub_(pull).mul_(2.0)
            first.lerp_(slope, 1.0 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(slope, slope, value=1.0 - BETAS[1])
            spread = (second / (1.0 - BETAS[1] ** step)).sqrt_().add_(EPS)
            here.addcdiv_(first, spread, value=-self.config.lr / (1.0 - BETAS[0] ** step))
        task.copy_(here)


def _pulls(block: Block) -> tuple[Tensor, Tensor]:
    """``Σ Gᵢ`` [I, I] and ``Σ δᵢ Gᵢ`` [O, I]; an expert that has not moved has no part in them."""
    import torch

    squares, pull = torch.zeros(block.shape[1], block.shape[1]), torch.zeros(block.shape)
    for index in range(len(block.experts_E)):
        gram = torch.zeros_like(squares)
        for _, delta in _deltas(block, index):
            gram.addmm_(delta.T, delta)
        size = gram.trace()  # ‖δ‖²
        if size == 0:
            continue
        squares += gram.div_(size)
        for rows, delta in _deltas(block, index):
            pull[rows].addmm_(delta, gram)
    return squares, pull


def _deltas(block: Block, index: int) -> Iterator[tuple[slice, Tensor]]:
    """An expert's task vector, a few rows at a time."""
    for rows in _rows(block.shape):
        yield rows, block.experts_E[index, rows] - block.anchor[rows]


def _rows(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, ROWS // max(1, shape[1]))
    return (slice(begin, begin + step) for begin in range(0, shape[0], step))
