"""Every weight of all models, read once, block by block, by several threads; results do not depend on their number."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from m2rl_analyzer_weight_shift.kernel import Kernel
from m2rl_analyzer_weight_shift.models import Models
from m2rl_analyzer_weight_shift.names import Place, places
from m2rl_analyzer_weight_shift.sketch import BLOCK, Projection
from m2rl_analyzer_weight_shift.tally import BINS, Floats, Tally
from m2rl_core.errors import DataError
from m2rl_core.weights import in_order, workers

SPAN = 4 * BLOCK
"""Weights that one task reads at once."""
SAMPLED = 16
"""The histogram of relative changes holds every so many-th block of a tensor, the first included."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading found."""

    places: Mapping[Place | None, Tally]
    """By layer and weight type; ``None`` for all other tensors."""
    histogram_EB: Floats
    """Weights by relative change, see :func:`~m2rl_analyzer_weight_shift.rules.histogram`."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece of a tensor."""

    name: str
    start: int
    count: int
    place: Place | None


@dataclass(slots=True)
class _Found:
    place: Place | None
    tally: Tally
    changes: list[tuple[float, Floats]] = field(default_factory=list)
    """Histograms of blocks, each with the factor that makes it stand for the blocks left out."""


def survey(models: Models, *, eta: float, seed: int, threads: int, span: int = SPAN) -> Survey:
    """Read everything.

    Args:
        eta: of the ``eta`` rule.
        seed: of the projection.
        threads: spans worked on at once.
        span: weights that are read at once, a multiple of the block.

    Raises:
        DataError: no weight type is known, or a weight is no finite number.
    """
    where = places(models.names)
    reader = _Reader(models, eta, Projection(seed), span)
    number = len(models.models)
    found: dict[Place | None, Tally] = {}
    histogram_EB = np.zeros((number, BINS))
    with workers(threads) as pool:
        for one in in_order(pool, reader.measure, _spans(models, where, span), ahead=2 * threads):
            found.setdefault(one.place, Tally.zero(number)).add(one.tally)
            for factor, changes_EB in one.changes:
                histogram_EB += factor * changes_EB
    return Survey(found, histogram_EB)


def _spans(models: Models, where: Mapping[str, Place | None], span: int) -> Iterator[_Span]:
    for name in models.names:
        size = models.base.tensors[name].size
        for start in range(0, size, span):
            yield _Span(name, start, min(span, size - start), where[name])


class _Reader:
    """Reads and measures spans, with buffers for each thread."""

    def __init__(self, models: Models, eta: float, projection: Projection, span: int) -> None:
        self._models, self._eta, self._projection, self._span = models, eta, projection, span
        self._local = threading.local()

    def measure(self, piece: _Span) -> _Found:
        kernel, raw = self._buffers()
        rows = [self._read(index, piece, buffer) for index, buffer in enumerate(raw)]
        dtypes = {row.dtype for row in rows}
        sources = raw.view(dtypes.pop())[:, : piece.count] if len(dtypes) == 1 else rows
        found = _Found(piece.place, Tally.zero(len(rows) - 1))
        for offset in range(0, piece.count, BLOCK):
            end = offset + BLOCK
            kernel.load(sources[:, offset:end] if isinstance(sources, Tensor) else [row[offset:end] for row in rows])
            if not kernel.finite:
                self._refuse(piece, rows)
            index = (piece.start + offset) // BLOCK
            if index % SAMPLED == 0:
                found.changes.append((self._factor(piece, index), kernel.changes()))
            found.tally.add(kernel.counts() if piece.place is None else kernel.tally(piece.name, index))
        return found

    def _read(self, index: int, piece: _Span, buffer: Tensor) -> Tensor:
        """The span of one source, in its stored type."""
        source = self._models.sources[index]
        out = buffer.view(source.tensors[piece.name].dtype)[: piece.count]
        source.read(piece.name, piece.start, out)
        return out

    def _factor(self, piece: _Span, index: int) -> float:
        """Weights from this block to the next that is sampled, over those of the block."""
        rest = self._models.base.tensors[piece.name].size - index * BLOCK
        return min(rest, SAMPLED * BLOCK) / min(rest, BLOCK)

    def _refuse(self, piece: _Span, sources: list[Tensor]) -> None:
        for label, values in zip(["the base", *self._models.models], sources, strict=True):
            if len(bad := (~values.isfinite()).nonzero()):
                raise DataError(
                    f"{label}: tensor '{piece.name}' holds a weight that is no finite number",
                    found=f"{values[bad[0]].item()} at element {piece.start + int(bad[0])}",
                    then="train or download that model again",
                )

    def _buffers(self) -> tuple[Kernel, Tensor]:
        """This thread's kernel, and room for a span's stored bytes of every source."""
        if not hasattr(self._local, "buffers"):
            number = len(self._models.models)
            raw = torch.empty(number + 1, 4 * self._span, dtype=torch.uint8)
            self._local.buffers = Kernel(number, self._eta, self._projection), raw
        buffers: tuple[Kernel, Tensor] = self._local.buffers
        return buffers
