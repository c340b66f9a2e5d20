"""SLERP, the Karcher mean and Model Stock: golden numbers, limits, angles, and what every merger must do."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import StageError
from m2rl_core.interfaces import Merger
from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_merger_geometric import Karcher, ModelStock, Slerp

ONES = torch.ones(8)
DELTAS = torch.tensor(
    [
        [4, -2, 1, 0.5, 0, 3, -1, 2],
        [2, 3, -1, 0.5, 0, -3, -4, 0.25],
        [-1, 1, -2, 0.5, 0, 0, 2, 8],
    ]
)
FIRST, SECOND = torch.tensor([1.0, 0, 0, 1]), torch.tensor([0.0, 2, 0, 1])


class TestSlerp(MergerContract):
    merger = Slerp(Slerp.Config())
    experts = 2


class TestSlerpNearOneEnd(MergerContract):
    merger = Slerp(Slerp.Config(t=0.2))
    experts = 2
    symmetric = False


class TestKarcher(MergerContract):
    merger = Karcher(Karcher.Config())


class TestModelStock(MergerContract):
    merger = ModelStock(ModelStock.Config())


def merged(
    merger: Merger, folder: Path, experts: Sequence[Tensor], base: Tensor | None = None, block: int = 3
) -> Tensor:
    """One tensor through the engine, in blocks that are smaller than it."""
    anchor = None if base is None else {"w": base}
    (output,) = merge_tensors(merger, folder, anchor, [{"w": expert} for expert in experts], block=block)
    return output["w"]


def on_circle(*degrees: float) -> list[Tensor]:
    return [torch.tensor([cos(radians(angle)), sin(radians(angle)), 0.0]) for angle in degrees]


def test_slerp_by_hand(tmp_path: Path) -> None:
    """Golden case G13."""
    found = merged(Slerp(Slerp.Config(t=0.25)), tmp_path, [FIRST, SECOND])
    torch.testing.assert_close(found, torch.tensor([0.849237, 0.647659, 0, 1.173067]), rtol=1e-5, atol=1e-6)


def test_slerp_ends_at_its_experts_and_moves_evenly_along_the_arc(tmp_path: Path) -> None:
    for t, wanted in ((0.0, FIRST), (1.0, SECOND)):
        torch.testing.assert_close(merged(Slerp(Slerp.Config(t=t)), tmp_path / str(t), [FIRST, SECOND]), wanted)
    found = merged(Slerp(Slerp.Config(t=0.25)), tmp_path / "arc", on_circle(10, 90))
    torch.testing.assert_close(found, on_circle(30)[0])


def test_slerp_is_a_chord_between_the_parallel_the_opposite_and_the_zero(tmp_path: Path) -> None:
    start = torch.tensor([3.0, 4.0])
    for name, end in {"same": 1.0001 * start, "opposite": -2 * start}.items():
        found = merged(Slerp(Slerp.Config(t=0.25)), tmp_path / name, [start, end])
        torch.testing.assert_close(found, 0.75 * start + 0.25 * end)
    at_rest = merged(Slerp(Slerp.Config(t=0.25)), tmp_path / "zero", [start, torch.zeros(2)])
    torch.testing.assert_close(at_rest, 0.75 * start)


def test_slerp_takes_two_experts() -> None:
    with pytest.raises(ValueError, match="two"):
        Slerp(Slerp.Config()).check(["math", "science", "coding"])


def test_karcher_by_hand(tmp_path: Path) -> None:
    """Golden case G13."""
    found = merged(Karcher(Karcher.Config()), tmp_path, [FIRST, SECOND])
    torch.testing.assert_close(found, torch.tensor([0.795428, 1.006146, 0, 1.298501]), rtol=1e-5, atol=1e-6)


def test_karcher_averages_angles_and_lengths(tmp_path: Path) -> None:
    """On a circle the Karcher mean is the mean angle, which that of the vectors' sum is not."""
    vectors = [length * unit for length, unit in zip((1, 2, 6), on_circle(0, 10, 80), strict=True)]
    found = merged(Karcher(Karcher.Config(iterations=50, tolerance=1e-12)), tmp_path, vectors)
    torch.testing.assert_close(found, 3 * on_circle(30)[0])


def test_karcher_keeps_what_tells_near_experts_apart(tmp_path: Path) -> None:
    """Task vectors of a thousandth: still the mean of the deltas, to their own precision."""
    noise = torch.Generator().manual_seed(4)
    base = torch.randn(20_000, generator=noise)
    experts = [base + 1e-3 * torch.randn(20_000, generator=noise) for _ in range(3)]
    found = merged(Karcher(Karcher.Config()), tmp_path, experts, block=4096)
    torch.testing.assert_close(found, torch.stack(experts).double().mean(0).float(), rtol=2e-6, atol=1e-6)


def test_karcher_leaves_tensors_without_a_direction_out(tmp_path: Path) -> None:
    found = merged(Karcher(Karcher.Config()), tmp_path / "one", [FIRST, SECOND, torch.zeros(4)])
    torch.testing.assert_close(found, torch.tensor([0.795428, 1.006146, 0, 1.298501]), rtol=1e-5, atol=1e-6)
    assert torch.equal(merged(Karcher(Karcher.Config()), tmp_path / "all", [torch.zeros(4)] * 2), torch.zeros(4))


def test_karcher_refuses_what_has_no_mean(tmp_path: Path) -> None:
    for name, degrees in {"cancel": (0, 120, 240), "opposite": (0, 0, 180)}.items():
        with pytest.raises(StageError, match=r"merger 'karcher' failed while merging w: .*no Karcher mean"):
            merged(Karcher(Karcher.Config()), tmp_path / name, on_circle(*degrees))


def test_model_stock_by_hand(tmp_path: Path) -> None:
    """Golden case G14."""
    found = merged(ModelStock(ModelStock.Config()), tmp_path, list(ONES + DELTAS), ONES)
    wanted = torch.tensor([0.97298, 0.989192, 1.010808, 0.991894, 1, 1, 1.016212, 0.94461])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_model_stock_is_the_mean_for_the_parallel_and_the_base_for_the_orthogonal(tmp_path: Path) -> None:
    base = torch.tensor([1.0, 1, 1])
    parallel, orthogonal = [base + k * FIRST[:3] for k in (1, 2)], [base + unit for unit in on_circle(0, 90)]
    stock = ModelStock(ModelStock.Config())
    torch.testing.assert_close(merged(stock, tmp_path / "p", parallel, base), base + 1.5 * FIRST[:3])
    torch.testing.assert_close(merged(stock, tmp_path / "o", orthogonal, base), base)


def test_model_stock_stays_at_the_base_where_task_vectors_cancel_out(tmp_path: Path) -> None:
    base = torch.tensor([1.0, 1, 1])
    cancelling = [base + unit for unit in on_circle(0, 120, 240)]
    assert torch.equal(merged(ModelStock(ModelStock.Config()), tmp_path, cancelling, base), base)


def test_model_stock_needs_an_angle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two experts or more"):
        ModelStock(ModelStock.Config()).check(["math"])
