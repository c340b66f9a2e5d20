"""The engine of every merge: all passes, then the merge itself, over blocks, in bounded memory.

Blocks are worked on by several threads; results are taken in block order, so that nothing depends on their number. One
*reading* of the inputs serves any number of tensor-wide passes and then one model-wide pass, or the merge: the former
are finished tensor by tensor, while its data is still in the page cache. A pass that is known without is left out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from m2rl_core.errors import DataError, StageError, boundary
from m2rl_core.interfaces import Merger, Pass, SkippablePass
from m2rl_core.merge.inputs import Inputs, Piece
from m2rl_core.merge.survey import Survey, survey
from m2rl_core.types import Block, Stats
from m2rl_core.weights import Fingerprint, in_order, leaves, workers

Write = Callable[[Piece, list[Tensor]], None]
"""Takes the outputs of one block; called from several threads."""

Report = Callable[[int, int], None]
"""Is told the bytes read so far, and those to be read in all."""

_A = TypeVar("_A")
_B = TypeVar("_B")


@dataclass(slots=True)
class Means:
    """Means of named numbers over tensors, weighted by their sizes."""

    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Name → sum of value × elements, and the elements."""

    def add(self, values: Mapping[str, float], size: int) -> None:
        for name, value in values.items():
            total, elements = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value * size, elements + size

    @property
    def values(self) -> dict[str, float]:
        return {name: total / elements for name, (total, elements) in self.sums.items()}


@dataclass(frozen=True, slots=True)
class _Reading:
    """One visit to every block: passes that are finished with their tensor, then a model-wide pass or the merge."""

    local: Sequence[Pass]
    last: Pass | None


@dataclass(frozen=True, slots=True)
class _Task:
    """One block to work on with what is known so far; its survey is taken too on the very first visit."""

    piece: Piece
    stats: Stats
    first: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the first visit to a block found beside the merger's own business."""

    survey: Survey
    leaves: list[list[int]]
    """Of each input's fingerprint."""


class Stream:
    """One merge over open inputs.

    Args:
        merger: what to do with each block.
        inputs: cut into blocks of the merger's granularity.
        write: takes the results.
        fingerprints: of the inputs' weights, to be taken on the way; shared by streams that read one model in parts.
        threads: work on so many blocks at once; a merger of whole tensors uses them within its tensor instead.
        report: is told the bytes read so far, and those to be read in all.
    """

    def __init__(
        self,
        merger: Merger,
        inputs: Inputs,
        write: Write,
        fingerprints: Sequence[Fingerprint] | None = None,
        *,
        threads: int = 1,
        report: Report | None = None,
    ) -> None:
        self._merger, self._inputs, self._write = merger, inputs, write
        self._threads, self._report = threads, report
        self.to_read = inputs.bytes * (len(merger.passes()) + 1)
        """Bytes, over all readings; fewer as soon as a pass turns out to be known."""
        self._read = 0
        self._survey: Survey | None = None
        self._fingerprints = fingerprints or [Fingerprint(source.tensors) for source in inputs.sources]
        self._model: dict[str, Any] = {}
        self._tensor: dict[str, dict[str, Any]] = {name: {} for name in inputs.tensors}
        self.diagnostics = Means()
        """The merger's own; known after :meth:`run`, as are :attr:`remarks`."""

    @property
    def survey(self) -> Survey:
        """Of all blocks; known after :meth:`run`."""
        if self._survey is None:
            raise DataError("the models hold no weights")
        return self._survey

    @property
    def whole_leaves(self) -> bool:
        """Whether the fingerprints can be taken on the way."""
        return self._inputs.whole_leaves

    @property
    def fingerprints(self) -> list[str]:
        """Of each input's weights; known after :meth:`run` where the inputs' blocks are whole leaves."""
        return [found.hexdigest() for found in self._fingerprints]

    @property
    def remarks(self) -> list[str]:
        """The merger's own."""
        with boundary(f"merger '{self._merger.name}'", "remarking on what it has found"):
            return list(self._merger.remarks(list(self._inputs.experts), self.diagnostics.values))

    def run(self) -> None:
        """Read everything as often as the merger's passes need, and write the results.

        Raises:
            DataError: a weight that is not a finite number; it names tensor, position and model.
            StageError: the merger's own code failed or broke its contract.
        """
        whole = self._inputs.granularity == "tensor"
        readings = list(_readings(self._merger.passes()))
        with workers(1, each=self._threads) if whole else workers(self._threads) as pool:
            for index, reading in enumerate(readings):
                if index and self._known_already(reading):
                    continue
                tasks = self._tasks(pool, reading, first=index == 0, keep=index < len(readings) - 1)
                if reading.last is None:
                    for size, told in self._results(pool, self._merge, tasks):
                        self.diagnostics.add(told, size)
                else:
                    self._model[reading.last.name] = self._combined(pool, reading.last, tasks)

    # ── one reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _known_already(self, reading: _Reading) -> bool:
        """Whether a whole reading is left out."""
        if reading.last is None or reading.local:
            return False
        found = self._known(reading.last, self._model, self._inputs.bytes)
        if found is not None:
            self._model[reading.last.name] = found
        return found is not None

    def _known(self, each: Pass, stats: Stats, size: int) -> Any | None:
        """What a pass would find, where it need not read its ``size`` bytes for that."""
        if not isinstance(each, SkippablePass):
            return None
        with boundary(f"merger '{self._merger.name}'", f"foreseeing {each.name}"):
            found = each.known(stats)
        if found is not None:
            self.to_read -= size
        return found

    def _tasks(self, pool: ThreadPoolExecutor, reading: _Reading, *, first: bool, keep: bool) -> Iterator[_Task]:
        """The blocks for a reading's last step; each tensor's own statistics are complete before its blocks come."""
        for name in self._inputs.tensors:
            pieces = list(self._inputs.pieces(name))
            stats = {**self._model, **self._tensor[name]}
            size = sum(piece.size for piece in pieces)
            for index, each in enumerate(reading.local if pieces else ()):
                new = first and index == 0  # and must be looked at for other reasons
                found = None if new else self._known(each, stats, size * self._inputs.itemsize(name))
                if found is None:
                    found = self._combined(pool, each, [_Task(piece, stats, new) for piece in pieces])
                stats[each.name] = found
                if keep:
                    self._tensor[name][each.name] = stats[each.name]
            if reading.last is None and pieces:
                self._diagnose(name, stats, size)
            yield from (_Task(piece, stats, first and not reading.local) for piece in pieces)

    def _diagnose(self, name: str, stats: Stats, size: int) -> None:
        with boundary(f"merger '{self._merger.name}'", f"diagnosing {name}"):
            self.diagnostics.add(self._merger.diagnostics(list(self._inputs.experts), stats), size)

    def _combined(self, pool: ThreadPoolExecutor, each: Pass, tasks: Iterable[_Task]) -> Any:
        def combine(left: Any, right: Any) -> Any:
            with boundary(f"merger '{self._merger.name}'", f"combining {each.name}"):
                return each.combine(left, right)

        return functools.reduce(combine, self._results(pool, functools.partial(self._measure, each), tasks))

    def _results(
        self, pool: ThreadPoolExecutor, work: Callable[[Block, _Task], _A], tasks: Iterable[_Task]
    ) -> Iterator[_A]:
        """What ``work`` returns for each block, in order."""

        def visit(task: _Task) -> tuple[Piece, _Seen | None, _A]:
            block, seen = self._load(task)
            return task.piece, seen, work(block, task)

        for piece, seen, result in in_order(pool, visit, tasks, ahead=2 * self._threads):
            if seen is not None:
                self._survey = seen.survey if self._survey is None else self._survey + seen.survey
                for found, new in zip(self._fingerprints, seen.leaves, strict=True):
                    found.add(piece.name, new)
            self._read += piece.size * self._inputs.itemsize(piece.name)
            if self._report is not None:
                self._report(self._read, self.to_read)
            yield result

    # ── one block, on a thread of the pool ───────────────────────────────────────────────────────────────────────────

    def _load(self, task: _Task) -> tuple[Block, _Seen | None]:
        if not task.first:
            return self._inputs.load(task.piece), None
        found: list[list[int]] = [[] for _ in self._inputs.sources]

        def visit(index: int, raw: memoryview) -> None:
            found[index] = leaves(raw, len(raw) // task.piece.size)

        block = self._inputs.load(task.piece, visit if self._inputs.whole_leaves else None)
        self._refuse_non_finite(block)
        return block, _Seen(survey(block), found)

    def _refuse_non_finite(self, block: Block) -> None:
        """Look for them one by one only where the sum, which takes little time, is not finite."""
        models = {
            f"expert '{name}'": values for name, values in zip(self._inputs.experts, block.experts_E, strict=True)
        }
        if block.base is not None:
            models = {"the base": block.base, **models}
        for label, values in models.items():
            flat = values.flatten()
            if not math.isfinite(flat.sum().item()) and len(bad := (~flat.isfinite()).nonzero()):
                raise DataError(
                    f"{label}: tensor '{block.name}' holds a weight that is no finite number",
                    found=f"{flat[bad[0]].item()} at element {block.offset + int(bad[0])}",
                    then="train or download that model again",
                )

    def _measure(self, each: Pass, block: Block, task: _Task) -> Any:
        with boundary(f"merger '{self._merger.name}'", f"measuring {each.name} on {block.name}"):
            return each.measure(block, task.stats)

    def _merge(self, block: Block, task: _Task) -> tuple[int, dict[str, float]]:
        """Elements, and what was told of them."""
        with boundary(f"merger '{self._merger.name}'", f"merging {block.name}"):
            outputs = self._merger.merge(block, task.stats)
        wanted = len(self._merger.outputs())
        if len(outputs) != wanted or any(o.shape != block.shape or o.dtype != torch.float32 for o in outputs):
            raise StageError(
                f"merger '{self._merger.name}' broke its contract on {block.name}",
                found=", ".join(f"{list(o.shape)} {o.dtype}" for o in outputs),
                allowed=f"{wanted} × {list(block.shape)} torch.float32",
            )
        self._write(task.piece, outputs)
        return task.piece.size, block.told


def _readings(passes: Sequence[Pass]) -> Iterator[_Reading]:
    """Passes in order, a reading ending with each model-wide one; the merge ends the last."""
    local: list[Pass] = []
    for each in passes:
        if each.scope == "model":
            yield _Reading(local, each)
            local = []
        else:
            local.append(each)
    yield _Reading(local, None)
