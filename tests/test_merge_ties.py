"""Whole-model TIES through the engine: three passes whose statistics build on each other, against its definition."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from m2rl_core.testing import MergerContract, merge_tensors

Floats = npt.NDArray[np.float32]


def _skeleton() -> ModuleType:
    spec = importlib.util.spec_from_file_location("skeleton_ties", Path(__file__).parent / "skeletons" / "ties.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Ties: Any = _skeleton().Ties


class TestTies(MergerContract):
    merger = Ties(Ties.Config(density=0.5))


class TestTiesOfEachTensor(MergerContract):
    merger = Ties(Ties.Config(density=0.5, scope="tensor"))


A = [4, -2, 1, 0.5, 0, 3, -1, 2]
B = [2, 3, -1, 0.5, 0, -3, -4, 0.25]
C = [-1, 1, -2, 0.5, 0, 0, 2, 8]


def merged(folder: Path, density: float, base: dict[str, Tensor], *deltas: dict[str, list[float]]) -> Any:
    experts = [{name: base[name] + torch.tensor(delta[name]) for name in base} for delta in deltas]
    (found,) = merge_tensors(Ties(Ties.Config(density=density)), folder, base, experts, block=3, threads=2)
    return {name: tensor.tolist() for name, tensor in found.items()}


def test_one_tensor_by_hand(tmp_path: Path) -> None:
    """Golden case G6: thresholds at ranks 4 and 6 of 8."""
    ones, deltas = {"w": torch.ones(8)}, [{"w": delta} for delta in (A, B, C)]
    assert merged(tmp_path / "half", 0.5, ones, *deltas)["w"] == [4, 3, -0.5, 1, 1, 4, -1.5, 6]
    assert merged(tmp_path / "quarter", 0.25, ones, *deltas)["w"] == [5, 4, -1, 1, 1, 4, -3, 6]


def test_one_threshold_for_all_tensors(tmp_path: Path) -> None:
    """Golden case G7: per tensor, ``t0`` would keep other entries."""
    zeros = {"t0": torch.zeros(4), "t1": torch.zeros(4)}
    one = {"t0": [1 / 16, 2 / 16, 3 / 16, 4 / 16], "t1": [5.0, -6.0, 7.0, 8.0]}
    two = {"t0": [4 / 16, -3 / 16, 2 / 16, 1 / 16], "t1": [-8.0, 7.0, 6.0, 5.0]}
    assert merged(tmp_path, 0.5, zeros, one, two) == {"t0": [0.25, 0, 0, 0.25], "t1": [-8, 7, 6.5, 6.5]}


def test_an_exact_cancellation_takes_the_sign_of_the_majority(tmp_path: Path) -> None:
    """Golden case G8."""
    deltas = [{"w": [-4.0, -3.0, 2.0, -5.0]}, {"w": [-4.0, -3.0, -2.0, -5.0]}]
    assert merged(tmp_path, 0.75, {"w": torch.zeros(4)}, *deltas)["w"][2] == -2


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("unmoved", [0.0, 0.4, 0.9])
def test_equals_its_definition(tmp_path: Path, scope: str, unmoved: float) -> None:
    """Also with many equal magnitudes, and where more than 80% of the entries did not move."""
    noise = torch.Generator().manual_seed(11)
    base = {"a": torch.randn(40, 25, generator=noise), "b": torch.randn(333, generator=noise)}

    def expert(scale: float) -> dict[str, Tensor]:
        moves = {name: (scale * torch.randn(t.shape, generator=noise)).round(decimals=2) for name, t in base.items()}
        return {name: t + moves[name] * (torch.rand(t.shape, generator=noise) > unmoved) for name, t in base.items()}

    experts = [expert(scale) for scale in (0.1, 0.02, 0.5)]
    merger = Ties(Ties.Config(density=0.2, scope=scope))
    (found,) = merge_tensors(merger, tmp_path, base, experts, block=64, threads=3)
    for names in [["a", "b"]] if scope == "model" else [["a"], ["b"]]:
        start, got = (np.concatenate([values[n].flatten().numpy() for n in names]) for values in (base, found))
        deltas_E = [np.concatenate([(each[n] - base[n]).flatten().numpy() for n in names]) for each in experts]
        np.testing.assert_allclose(got, start + naive(deltas_E, 0.2), rtol=1e-6, atol=1e-7)


def naive(deltas_E: list[Floats], density: float) -> Floats:
    """Algorithm 1 of the paper, all at once."""
    kept_E = []
    for delta in deltas_E:
        rank = delta.size - int(delta.size * density)
        floor = np.partition(np.abs(delta), rank - 1)[rank - 1]
        kept_E.append(np.where(np.abs(delta) >= floor, delta, np.float32(0)))
    sign = np.sign(np.sum(kept_E, 0))
    sign[sign == 0] = 1 if sign.sum() > 0 else -1
    agreeing_E = np.where(np.sign(kept_E) == sign, kept_E, np.float32(0))
    mean: Floats = agreeing_E.sum(0) / np.maximum((agreeing_E != 0).sum(0), 1).astype(np.float32)
    return mean
