"""Model Breadcrumbs: hand cases, its definition, and what every merger must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_sparse import Breadcrumbs


class TestBreadcrumbs(MergerContract):
    merger = Breadcrumbs(Breadcrumbs.Config(density=0.5, top=0.1))


class TestWeightedBreadcrumbs(MergerContract):
    merger = Breadcrumbs(Breadcrumbs.Config(density=0.3, top=0.2, scale=0.5, weights=[1.0, -0.5, 2.0]))
    symmetric = False


class TestBreadcrumbsOfEachExpert(MergerContract):
    merger = Breadcrumbs(Breadcrumbs.Config(density=[0.0, 0.3, 1.0], top=0.2))
    symmetric = False


def merged(folder: Path, deltas_E: Tensor, **settings: object) -> Tensor:
    base = torch.zeros(deltas_E.shape[1:])
    merger = Breadcrumbs(Breadcrumbs.Config.model_validate(settings))
    return merge_tensors(merger, folder, {"w": base}, [{"w": d} for d in deltas_E], block=7, threads=2)[0]["w"]


def kept(delta: Tensor, density: float, top: float) -> Tensor:
    """One expert's entries by sorting; entries that equal a threshold are kept."""
    size = delta.numel()
    keep = int(density * size)
    first = max(0, size - keep - int(top * size))
    order = delta.abs().flatten().sort().values
    if not keep:
        return torch.zeros_like(delta)
    return delta * ((delta.abs() >= order[first]) & (delta.abs() <= order[first + keep - 1]))


def test_one_expert_by_hand(tmp_path: Path) -> None:
    """Of ten entries the largest is an outlier, and the four below it are kept."""
    deltas_E = torch.tensor([[1.0, -2, 3, -4, 5, -6, 7, -8, 9, -10]])
    found = merged(tmp_path, deltas_E, density=0.4, top=0.1)
    assert found.tolist() == [0, 0, 0, 0, 0, -6, 7, -8, 9, 0]


def test_no_outliers_in_a_small_tensor(tmp_path: Path) -> None:
    """⌊top·n⌋ = 0 once made another tool zero the whole tensor."""
    deltas_E = torch.tensor([[1.0, -2, 3, -4], [4.0, 3, -2, 1]])
    assert merged(tmp_path, deltas_E, density=0.5, top=0.01).tolist() == [4, 3, 3, -4]


def test_outliers_stay_where_the_density_leaves_no_room(tmp_path: Path) -> None:
    deltas_E = torch.tensor([[1.0, -2, 3, -4]])
    assert merged(tmp_path / "all", deltas_E, density=1.0, top=0.5).tolist() == [1, -2, 3, -4]
    assert merged(tmp_path / "most", deltas_E, density=0.75, top=0.5).tolist() == [1, -2, 3, 0]
    assert not merged(tmp_path / "none", deltas_E, density=0.2, top=0.0).any()


@pytest.mark.parametrize("unmoved", [0.0, 0.5, 0.95])
def test_breadcrumbs_equal_their_definition(tmp_path: Path, unmoved: float) -> None:
    """Also with many equal magnitudes and unmoved entries."""
    noise = torch.Generator().manual_seed(4)
    deltas_E = torch.randn(3, 30, 40, generator=noise).round(decimals=1)
    deltas_E *= torch.rand(deltas_E.shape, generator=noise) >= unmoved
    found = merged(tmp_path, deltas_E, density=0.25, top=0.05, scale=0.3, weights=[1, 2, -1])
    wanted = sum(w * kept(d, 0.25, 0.05) for w, d in zip((1, 2, -1), deltas_E, strict=True))
    torch.testing.assert_close(found, 0.3 * wanted, rtol=1e-6, atol=1e-7)
    shares = [0.0, 0.3, 0.6]
    found = merged(tmp_path / "each", deltas_E, density=shares, top=0.05)
    wanted = sum(kept(delta, share, 0.05) for share, delta in zip(shares, deltas_E, strict=True))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("density", "top"), [(0.25, 0.05), (0.9, 0.05), (0.0005, 0.1), (1.0, 0.0)])
def test_tells_the_density_that_ties_and_zeros_leave(density: float, top: float) -> None:
    noise = torch.Generator().manual_seed(4)
    deltas_E = torch.randn(3, 1200, generator=noise).round(decimals=1)
    deltas_E *= torch.rand(deltas_E.shape, generator=noise) >= 0.6
    merger = Breadcrumbs(Breadcrumbs.Config(density=density, top=top))
    block = Block("w", 0, (1200,), torch.zeros(1200), deltas_E, ("a", "b", "c"))
    stats: dict[str, object] = {}
    for each in merger.passes():
        stats[each.name] = each.measure(block, stats)
    found = merger.diagnostics(["a", "b", "c"], stats)
    wanted = {n: (kept(d, density, top) != 0).float().mean().item() for n, d in zip("abc", deltas_E, strict=True)}
    assert found == pytest.approx({f"density/{name}": share for name, share in wanted.items()}, abs=1e-6)


def test_refuses_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="2 weights for 3 experts"):
        Breadcrumbs(Breadcrumbs.Config(weights=[1, 2])).check(["a", "b", "c"])
    with pytest.raises(ValueError, match="2 densities for 3 experts"):
        Breadcrumbs(Breadcrumbs.Config(density=[0.1, 0.2])).check(["a", "b", "c"])
    for density, top in ((1.1, 0.0), (0.5, 1.0), (-0.1, 0.0)):
        with pytest.raises(ValidationError):
            Breadcrumbs.Config(density=density, top=top)
