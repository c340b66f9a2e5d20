"""What every merger must do, checked through the engine that merges for real.

::

    class TestAverage(MergerContract):
        merger = Average(Average.Config())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.merge.inputs import Inputs, Piece
from m2rl_core.merge.stream import Stream
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
) -> list[dict[str, Tensor]]:
    """Merge a few tensors through files in ``folder``, an empty one: float32 tensors by name, for each output.

    Args:
        block: elements of a block.
        threads: blocks at once.
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
        inputs = Inputs(anchor, named, list(experts[0]), granularity=merger.granularity, block=block)
        Stream(merger, inputs, write, threads=threads).run()
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

    def test_takes_the_experts_that_it_merges(self) -> None:
        self.merger.check([f"expert-{index}" for index in range(len(_experts()))])

    def test_fills_every_output_with_finite_numbers(self, tmp_path: Path) -> None:
        outputs = merge_tensors(self.merger, tmp_path, _base(), _experts())
        assert all(torch.isfinite(tensor).all() for output in outputs for tensor in output.values())

    def test_experts_that_never_moved_change_nothing(self, tmp_path: Path) -> None:
        for output in merge_tensors(self.merger, tmp_path, _base(), [_base()] * 3):
            for name, tensor in _base().items():
                torch.testing.assert_close(output[name], tensor, rtol=1e-6, atol=1e-7)

    def test_the_order_of_experts_means_nothing(self, tmp_path: Path) -> None:
        if not self.symmetric:
            return
        straight = merge_tensors(self.merger, tmp_path / "straight", _base(), _experts())
        turned = merge_tensors(self.merger, tmp_path / "turned", _base(), _experts()[::-1])
        for one, other in zip(straight, turned, strict=True):
            for name in one:
                torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)

    def test_blocks_and_threads_mean_nothing(self, tmp_path: Path) -> None:
        whole = merge_tensors(self.merger, tmp_path / "whole", _base(), _experts())
        for block, threads in ((1, 1), (7, 3), (16, 2)):
            folder = tmp_path / f"{block}-{threads}"
            split = merge_tensors(self.merger, folder, _base(), _experts(), block=block, threads=threads)
            for one, other in zip(whole, split, strict=True):
                assert all(torch.equal(one[name], other[name]) for name in one), f"blocks of {block}"

    def test_leaves_its_blocks_alone(self, tmp_path: Path) -> None:
        merge_tensors(_Watched(self.merger), tmp_path, _base(), _experts(), block=16)

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
        self.granularity, self.needs_base = inner.granularity, inner.needs_base

    def outputs(self) -> Sequence[str]:
        return self._inner.outputs()

    def passes(self) -> Sequence[Pass]:
        return self._inner.passes()

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        before = (None if block.base is None else block.base.clone(), block.experts_E.clone())
        outputs = self._inner.merge(block, stats)
        assert before[0] is None or block.base is None or torch.equal(before[0], block.base)
        assert torch.equal(before[1], block.experts_E)
        return outputs


def _base() -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(1)
    shapes = {"norm": (6,), "matrix": (8, 5), "stack": (2, 3, 4)}
    return {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}


def _experts() -> list[dict[str, Tensor]]:
    """Three, each with a third of its weights unmoved."""
    noise = torch.Generator().manual_seed(2)
    return [
        {
            name: tensor
            + 0.1 * torch.randn(tensor.shape, generator=noise) * (torch.rand(tensor.shape, generator=noise) > 0.33)
            for name, tensor in _base().items()
        }
        for _ in range(3)
    ]
