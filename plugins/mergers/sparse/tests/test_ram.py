"""RAM and RAM+: golden numbers, thresholds, and what every merger must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_sparse import Ram

A = torch.tensor([4, 0, 1, 0.5, 0, 3, 0, 2])
B = torch.tensor([2, 3, 0, 0, 0, -3, 0, 0.25])


class TestRam(MergerContract):
    merger = Ram(Ram.Config())


class TestRamPlus(MergerContract):
    merger = Ram(Ram.Config(r=0.5, alpha=3.0))


class TestRamPlusOfEachTensor(MergerContract):
    merger = Ram(Ram.Config(r=0.5, alpha=3.0, scope="tensor", relative=False, epsilon=0.02))


def merged(folder: Path, base: dict[str, Tensor], *deltas: dict[str, Tensor], **settings: Any) -> dict[str, Tensor]:
    experts = [{name: base[name] + delta[name] for name in base} for delta in deltas]
    return merge_tensors(Ram(Ram.Config(**settings)), folder, base, experts, block=3, threads=2)[0]


def test_two_experts_by_hand(tmp_path: Path) -> None:
    """Golden case G12, without and with rescaling."""
    base = {"w": torch.ones(8)}
    plain = torch.tensor([4, 4, 2, 1.5, 1, 1, 1, 2.125])
    plus = torch.tensor([4, 4.06, 2.02, 1.51, 1, 1, 1, 2.125])
    for index, absolute in enumerate(({}, {"relative": False, "epsilon": 1e-5})):
        found = merged(tmp_path / f"plain-{index}", base, {"w": A}, {"w": B}, **absolute)["w"]
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-7)
        found = merged(tmp_path / f"plus-{index}", base, {"w": A}, {"w": B}, r=0.1, scope="tensor", **absolute)["w"]
        torch.testing.assert_close(found, plus, rtol=1e-6, atol=1e-7)


def test_the_overlap_is_that_of_whole_task_vectors_or_of_tensors(tmp_path: Path) -> None:
    """Expert one shares nothing in ``a`` and everything but one entry in ``b``: ρ = 0 and 2, or 2 / 3 for the model."""
    base = {"a": torch.zeros(2), "b": torch.zeros(3)}
    one = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([1.0, 1.0, 1.0])}
    two = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([1.0, 1.0, 0.0])}
    settings = {"r": 1.0, "alpha": 10.0}
    by_tensor = merged(tmp_path / "tensor", base, one, two, scope="tensor", **settings)
    assert by_tensor["a"].tolist() == [1, 1]
    assert by_tensor["b"].tolist() == [1, 1, 3]
    by_model = merged(tmp_path / "model", base, one, two, **settings)
    torch.testing.assert_close(by_model["a"], torch.full((2,), 5 / 3))
    torch.testing.assert_close(by_model["b"], torch.tensor([1, 1, 5 / 3]))


def test_a_relative_threshold_does_not_care_for_scale_and_an_absolute_one_does(tmp_path: Path) -> None:
    base = {"w": torch.zeros(8)}
    small = [{"w": delta * 1e-6} for delta in (A, B)]
    relative = merged(tmp_path / "relative", base, *small)["w"]
    torch.testing.assert_close(relative / 1e-6, torch.tensor([3, 3, 1, 0.5, 0, 0, 0, 1.125]))
    assert not merged(tmp_path / "absolute", base, *small, relative=False, epsilon=1e-5)["w"].any()


def test_entries_below_the_threshold_do_not_count(tmp_path: Path) -> None:
    """0.1 of the root mean square, 1.0, of expert one: its second entry neither adds nor divides."""
    one, two = torch.tensor([2.0, 0.09, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    found = merged(tmp_path, {"w": torch.zeros(4)}, {"w": one}, {"w": two})["w"]
    assert found.tolist() == [2, 1, 0, 1]


def test_tells_the_density_that_counts() -> None:
    """The second entry of the last test's first expert does not."""
    deltas_E = torch.tensor([[2.0, 0.09, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    block, merger = Block("w", 0, (4,), torch.zeros(4), deltas_E, ("math", "law")), Ram(Ram.Config())
    stats = {each.name: each.measure(block, {}) for each in merger.passes()}
    merger.merge(block, stats)
    assert block.told == {"density/math": 1 / 4, "density/law": 2 / 4}


def test_presets_are_settings() -> None:
    chosen = {name: Ram.Config.model_validate(preset.settings) for name, preset in Ram.presets.items()}
    assert {name: config.r for name, config in chosen.items()} == {
        "ram-plus": 0.1,
        "published": 0.0,
        "published-plus": 0.1,
    }
