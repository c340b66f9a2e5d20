"""A sweep: each output is what its merger makes alone, byte for byte, and the inputs are read no more often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import ConfigError, StageError
from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.merge import Sweep, merge_models
from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.testing.family import family
from m2rl_core.types import Block, Stats
from m2rl_core.weights import stream_named
from m2rl_merger_dare import Dare
from m2rl_merger_sce import Sce
from m2rl_merger_task_arithmetic import TaskArithmetic
from m2rl_merger_ties import Ties

SCALES = (0.0, 0.3, 1.0, 1.5)
COUNTED: Counter[str] = Counter()
"""Blocks that each pass of :class:`Cut` has measured, by the settings that it was built with."""


def added(scale: float) -> TaskArithmetic:
    return TaskArithmetic(TaskArithmetic.Config(scale=scale))


def added_at_each_scale() -> Sweep:
    return Sweep({f"scale={scale}": added(scale) for scale in SCALES})


@dataclass
class Length:
    """The mean magnitude of the task vectors, of the model or of each tensor; equal for all mergers."""

    scope: Literal["model", "tensor"]
    name: str = "length"

    def measure(self, block: Block, stats: Stats) -> Tensor:
        COUNTED[self.name] += 1
        return torch.tensor([block.deltas_E.double().abs().sum(), block.deltas_E.numel()])

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Above:
    """The share of entries above ``cut`` mean magnitudes; a plain object, as a plugin may write one."""

    name = "above"

    def __init__(self, cut: float, scope: Literal["model", "tensor"]) -> None:
        self.cut, self.scope = cut, scope

    def measure(self, block: Block, stats: Stats) -> Tensor:
        COUNTED[f"{self.name} {self.cut}"] += 1
        total, size = stats["length"]
        far = block.deltas_E.double().abs() > self.cut * total / size
        return torch.tensor([far.sum(), far.numel()], dtype=torch.float64)

    def combine(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Cut(Merger):
    """The sum of the task vectors, scaled by how many of their entries are far from zero."""

    name: ClassVar[str] = "cut"
    reference: ClassVar[str] = "test"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    granularity: Literal["block", "rows", "tensor"] = "block"
    needs_base = True

    def __init__(self, cut: float, scale: float, scopes: Sequence[Literal["model", "tensor"]]) -> None:
        self.cut, self.scale, self.scopes = cut, scale, scopes

    def passes(self) -> Sequence[Pass]:
        return [Length(self.scopes[0]), Above(self.cut, self.scopes[1])]

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        assert block.base is not None
        far, size = stats["above"]
        return [block.base + block.deltas_E.sum(0).mul_(self.scale * float(far / size))]


class TestSweep(MergerContract):
    merger = Sweep({"half": added(0.5), "full": added(1.0)})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_output_is_the_single_merge_byte_for_byte(tmp_path: Path) -> None:
    """Weights, configuration and card."""
    models = family(tmp_path, 3)
    base = models.pop("base")
    sweep = added_at_each_scale()
    merge_models(sweep, base=base, experts=models, out={name: tmp_path / name for name in sweep.members}, threads=2)
    for name, member in sweep.members.items():
        merge_models(member, base=base, experts=models, out=tmp_path / "alone" / name)
        assert files(tmp_path / name) == files(tmp_path / "alone" / name)
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in sweep.members}) == len(SCALES)


def test_the_inputs_are_read_once(tmp_path: Path) -> None:
    models = family(tmp_path)
    base = models.pop("base")
    read: list[tuple[int, int]] = []
    sweep = added_at_each_scale()
    out = {name: tmp_path / name for name in sweep.members}
    merge_models(sweep, base=base, experts=models, out=out, report=lambda *progress: read.append(progress))
    assert read[-1][0] == read[-1][1] == 3 * sum(tensor.nbytes for _, tensor in stream_named(base))


def test_a_sweep_reads_as_often_as_the_merger_that_reads_most(tmp_path: Path) -> None:
    """SCE without selection has one pass, with it three; all of them that differ by ``semantics`` alone are shared."""
    models = family(tmp_path, 3)
    base, read = models.pop("base"), list[tuple[int, int]]()
    settings = [(tau, semantics) for tau in (1.0, 0.5, 0.2) for semantics in ("fuseai", "mergekit")]
    sweep = Sweep({f"{each}": Sce(Sce.Config(tau=each[0], semantics=each[1])) for each in settings})
    out = {name: tmp_path / name for name in sweep.members}
    merge_models(sweep, base=base, experts=models, out=out, report=lambda *progress: read.append(progress))
    weights = 4 * sum(tensor.nbytes for _, tensor in stream_named(base))
    assert read[-1] == (4 * weights, 4 * weights)
    assert [len(bundle.parts) for bundle in sweep._bundles] == [2, 2, 2]
    for name, member in sweep.members.items():
        merge_models(member, base=base, experts=models, out=tmp_path / "alone" / name)
        assert files(tmp_path / name) == files(tmp_path / "alone" / name)


def dare(rate: float | list[float], scale: float) -> Dare:
    config = Dare.Config(then={"use": "ties", "scale": scale}, rate=rate)
    return Dare(config, then=Ties(Ties.Config(scale=scale)))


@pytest.mark.parametrize(
    ("members", "parts"),
    [
        ({f"{d} {s}": Ties(Ties.Config(density=d, scale=s)) for d in (0.2, 0.5) for s in (0.5, 1.0)}, [1, 2, 2]),
        ({f"{rate} {scale}": dare(rate, scale) for rate in (0.2, 0.8) for scale in (0.5, 1.0)}, [2, 2, 2]),
        (
            {f"{d} {s}": Ties(Ties.Config(density=d, scale=s)) for d in (0.2, [0.5, 0.2, 1.0]) for s in (0.5, 1.0)},
            [1, 2, 2],
        ),
        ({f"{rate} {s}": dare(rate, s) for rate in ([0.2, 0.5, 0.0], [0.8] * 3) for s in (0.5, 1.0)}, [2, 2, 2]),
    ],
    ids=["ties", "dare", "ties each", "dare each"],
)
def test_mergers_that_differ_in_scale_share_their_statistics(
    tmp_path: Path, members: Mapping[str, Ties | Dare], parts: list[int]
) -> None:
    """And those that differ in density the counts of high halves."""
    models = family(tmp_path, 3)
    base = models.pop("base")
    sweep = Sweep(members)
    assert [len(bundle.parts) for bundle in sweep._bundles] == parts
    merge_models(sweep, base=base, experts=models, out={name: tmp_path / name for name in members}, threads=2)
    for name, member in members.items():
        merge_models(member, base=base, experts=models, out=tmp_path / "alone" / name)
        assert files(tmp_path / name) == files(tmp_path / "alone" / name)


def vectors(count: int) -> list[dict[str, Tensor]]:
    """Two tensors each, of five and two blocks of eight."""
    noise = torch.Generator().manual_seed(3)
    return [{"a": torch.randn(5, 8, generator=noise), "b": torch.randn(16, generator=noise)} for _ in range(count)]


Members = Mapping[str, Cut]
MIXED: dict[str, Members] = {
    "model": {f"{cut} {scale}": Cut(cut, scale, ("model", "model")) for cut in (0.5, 1.0) for scale in (1.0, 2.0)},
    "tensor": {f"{cut} {scale}": Cut(cut, scale, ("tensor", "tensor")) for cut in (0.5, 1.0) for scale in (1.0, 2.0)},
    "both": {
        "mm": Cut(0.5, 1.0, ("model", "model")),
        "mt": Cut(0.5, 1.0, ("model", "tensor")),
        "tm": Cut(0.5, 1.0, ("tensor", "model")),
        "tt": Cut(0.5, 1.0, ("tensor", "tensor")),
    },
}


@pytest.mark.parametrize("members", MIXED.values(), ids=MIXED.keys())
@pytest.mark.parametrize("threads", [1, 3])
def test_statistics_are_those_that_each_merger_would_gather(tmp_path: Path, members: Members, threads: int) -> None:
    base, *experts = vectors(4)
    found = merge_tensors(Sweep(members), tmp_path / "sweep", base, experts, block=8, threads=threads)
    for (name, member), output in zip(members.items(), found, strict=True):
        (alone,) = merge_tensors(member, tmp_path / name, base, experts, block=8)
        assert all(torch.equal(alone[tensor], output[tensor]) for tensor in alone), name


def test_equal_passes_are_measured_once_and_others_in_the_same_reading(tmp_path: Path) -> None:
    base, *experts = vectors(3)
    COUNTED.clear()
    sweep = Sweep(MIXED["model"])
    merge_tensors(sweep, tmp_path, base, experts, block=8)
    assert COUNTED == {"length": 7, "above 0.5": 7, "above 1.0": 7}
    assert len(sweep.passes()) == 2


def test_an_equal_pass_that_has_seen_something_else_is_another(tmp_path: Path) -> None:
    """``above`` means other entries where ``length`` was that of each tensor."""
    base, *experts = vectors(3)
    COUNTED.clear()
    members = {"m": Cut(0.5, 1.0, ("model", "model")), "t": Cut(0.5, 1.0, ("tensor", "model"))}
    merge_tensors(Sweep(members), tmp_path, base, experts, block=8)
    assert COUNTED == {"length": 14, "above 0.5": 14}


def test_passes_with_settings_that_do_not_compare_are_told_apart(tmp_path: Path) -> None:
    class Weighing(Length):
        weights = torch.ones(2)

        def measure(self, block: Block, stats: Stats) -> Tensor:
            return super().measure(block, stats).mul_(vars(self)["weights"].sum())

    class Weighed(Cut):
        def passes(self) -> Sequence[Pass]:
            first = Weighing(self.scopes[0])
            vars(first)["weights"] = torch.full((2,), self.scale)
            return [first, Above(self.cut, self.scopes[1])]

    base, *experts = vectors(3)
    COUNTED.clear()
    members = {str(scale): Weighed(0.5, scale, ("model", "model")) for scale in (1.0, 2.0)}
    merge_tensors(Sweep(members), tmp_path, base, experts, block=8)
    assert COUNTED["length"] == 14


def test_what_cannot_be_swept_is_refused() -> None:
    class Rows(Cut):
        granularity: Literal["block", "rows", "tensor"] = "rows"

    class Two(Cut):
        def outputs(self) -> Sequence[str]:
            return ("a", "b")

    settings: Any = (1.0, 1.0, ("model", "model"))
    with pytest.raises(ConfigError, match="at least one"):
        Sweep({})
    with pytest.raises(ConfigError, match=r"block for one, rows for two"):
        Sweep({"one": Cut(*settings), "two": Rows(*settings)})
    with pytest.raises(ConfigError, match=r"one: merger 'cut' has several outputs"):
        Sweep({"one": Two(*settings)})


def test_errors_name_the_setting(tmp_path: Path) -> None:
    class Broken(Cut):
        def merge(self, block: Block, stats: Stats) -> list[Tensor]:
            if self.cut > 1:
                raise ZeroDivisionError("by nought")
            return super().merge(block, stats)

    members = {f"cut={cut}": Broken(cut, 1.0, ("model", "model")) for cut in (0.5, 2.0)}
    base, *experts = vectors(3)
    with pytest.raises(StageError, match=r"merger 'cut' with cut=2.0 failed while merging a: ZeroDivisionError"):
        merge_tensors(Sweep(members), tmp_path, base, experts)
    weighed = {"w=1": added(1.0), "w=2": TaskArithmetic(TaskArithmetic.Config(weights=[1.0, 2.0]))}
    with pytest.raises(ValueError, match=r"w=2: 2 weights for 3 experts"):
        Sweep(weighed).check(["a", "b", "c"])
