"""What every merger must do, checked through the engine that merges for real.

::

    class TestAverage(MergerContract):
        merger = Average(Average.Config())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.merge.inputs import Inputs, Piece
from m2rl_core.merge.stream import Report, Stream
from m2rl_core.types import Block, Stats
from m2rl_core.weights import LEAF, Checkpoint, Writer

__all__ = ["MergerContract", "merge_tensors"]

Tensors = Mapping[str, Tensor]


def merge_tensors(
    merger: Merger,
    folder: Path,
    base: Tensors | None,
    experts: Sequence[Tensors],
    *,
    block: int = LEAF,
    threads: int = 1,
    evidence: Mapping[str, Sequence[Tensors]] | None = None,
    report: Report | None = None,
) -> list[dict[str, Tensor]]:
    """Merge a few tensors through files in ``folder``, an empty one: float32 tensors by name, for each output.

    Args:
        evidence: what the merger needs beyond weights: kind → tensors by name, for each expert.
        block: elements of a block.
        threads: blocks at once.
        report: is told the bytes read so far, and those to be read in all.
    """
    merged = [{n: torch.full(t.shape, torch.nan) for n, t in experts[0].items()} for _ in merger.outputs()]

    def write(piece: Piece, outputs: list[Tensor]) -> None:
        for tensors, values in zip(merged, outputs, strict=True):
            tensors[piece.name].view(-1)[piece.offset : piece.offset + piece.size] = values.flatten()

    with ExitStack() as stack:

        def opened(name: str, tensors: Tensors) -> Checkpoint:
            return stack.enter_context(Checkpoint.open(_saved(folder / name, tensors)))

        anchor = None if base is None else opened("base", base)
        named = {f"expert-{index}": opened(f"expert-{index}", tensors) for index, tensors in enumerate(experts)}
        seen = {
            kind: [opened(f"{kind}-{index}", tensors) for index, tensors in enumerate(each)]
            for kind, each in (evidence or {}).items()
        }
        names = list(experts[0])
        inputs = Inputs(anchor, named, names, granularity=merger.granularity, block=block, evidence=seen)
        Stream(merger, inputs, write, threads=threads, report=report).run()
    return merged


def _saved(folder: Path, tensors: Tensors) -> Path:
    folder.mkdir(parents=True)
    with Writer(folder, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}) as writer:
        for name, tensor in tensors.items():
            writer.write(name, 0, tensor.contiguous().flatten())
    return folder


class MergerContract:
    """Subclass it with a merger, in a test module."""

    merger: ClassVar[Merger]
    symmetric: ClassVar[bool] = True
    """Whether the order of the experts means nothing; False e.g. for experts with weights of their own."""

    experts: ClassVar[int] = 3
    """How many are merged here."""

    def _merge(self, folder: Path, experts: Sequence[Tensors], *, step: int = 1, **how: Any) -> list[dict[str, Tensor]]:
        """``experts`` with the evidence that the merger needs; both in reverse order for a ``step`` of -1."""
        evidence = {kind: _evidence(kind, len(experts))[::step] for kind in sorted(self.merger.needs)}
        return merge_tensors(self.merger, folder, _base(), experts[::step], evidence=evidence, **how)

    def test_takes_the_experts_that_it_merges(self) -> None:
        self.merger.check([f"expert-{index}" for index in range(self.experts)])

    def test_fills_every_output_with_finite_numbers(self, tmp_path: Path) -> None:
        outputs = self._merge(tmp_path, _experts(self.experts))
        assert all(torch.isfinite(tensor).all() for output in outputs for tensor in output.values())

    def test_experts_that_never_moved_change_nothing(self, tmp_path: Path) -> None:
        for output in self._merge(tmp_path, [_base()] * self.experts):
            for name, tensor in _base().items():
                torch.testing.assert_close(output[name], tensor, rtol=1e-6, atol=1e-7)

    def test_the_order_of_experts_means_nothing(self, tmp_path: Path) -> None:
        if not self.symmetric:
            return
        straight = self._merge(tmp_path / "straight", _experts(self.experts))
        turned = self._merge(tmp_path / "turned", _experts(self.experts), step=-1)
        for one, other in zip(straight, turned, strict=True):
            for name in one:
                torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)

    def test_blocks_and_threads_mean_nothing(self, tmp_path: Path) -> None:
        whole = self._merge(tmp_path / "whole", _experts(self.experts))
        for block, threads in ((1, 1), (7, 3), (16, 2)):
            folder = tmp_path / f"{block}-{threads}"
            split = self._merge(folder, _experts(self.experts), block=block, threads=threads)
            for one, other in zip(whole, split, strict=True):
                assert all(torch.equal(one[name], other[name]) for name in one), f"blocks of {block}"

    def test_leaves_its_blocks_alone(self, tmp_path: Path) -> None:
        evidence = {kind: _evidence(kind, self.experts) for kind in sorted(self.merger.needs)}
        experts = _experts(self.experts)
        merge_tensors(_Watched(self.merger), tmp_path, _base(), experts, block=16, evidence=evidence)

    def test_passes_have_names_of_their_own(self) -> None:
        names = [each.name for each in self.merger.passes()]
        assert len(set(names)) == len(names)


class _Watched(Merger):
    """A merger that fails where the one inside changes its block."""

    name: ClassVar[str] = "watched"
    reference: ClassVar[str] = ""
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, inner: Merger) -> None:
        self._inner = inner
        self.granularity, self.needs_base, self.needs = inner.granularity, inner.needs_base, inner.needs

    def outputs(self) -> Sequence[str]:
        return self._inner.outputs()

    def passes(self) -> Sequence[Pass]:
        return self._inner.passes()

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        held = [block.experts_E, *block.evidence.values(), *([] if block.base is None else [block.base])]
        before = [values.clone() for values in held]
        outputs = self._inner.merge(block, stats)
        assert all(map(torch.equal, before, held)), f"the merger has changed its block of {block.name}"
        return outputs


def _base() -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(1)
    shapes = {"norm": (6,), "matrix": (8, 5), "stack": (2, 3, 4)}
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}


def _experts(number: int) -> list[dict[str, Tensor]]:
    """Each with a third of its weights unmoved."""
    noise = torch.Generator().manual_seed(2)
    return [
        {
            name: tensor
            + 0.1 * torch.randn(tensor.shape, generator=noise) * (torch.rand(tensor.shape, generator=noise) > 0.33)
            for name, tensor in _base().items()
        }
        for _ in range(number)
    ]


def _evidence(kind: str, experts: int) -> list[dict[str, Tensor]]:
    """``fisher``: positive numbers for every weight; ``gram``: a Gram matrix for every matrix."""
    noise = torch.Generator().manual_seed(3)
    return [
        {
            name: torch.rand(tensor.shape, generator=noise)
            if kind == "fisher"
            else _gram(torch.randn(9, tensor.shape[1], generator=noise))
            for name, tensor in _base().items()
            if kind == "fisher" or tensor.dim() == 2
        }
        for _ in range(experts)
    ]


def _gram(rows: Tensor) -> Tensor:
    return rows.T @ rows / len(rows)
