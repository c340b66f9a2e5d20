"""TIES: golden numbers of three implementations, its definition, exact thresholds, and what every merger must do."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_ties import Ties

DELTAS = torch.tensor(
    [
        [4, -2, 1, 0.5, 0, 3, -1, 2],
        [2, 3, -1, 0.5, 0, -3, -4, 0.25],
        [-1, 1, -2, 0.5, 0, 0, 2, 8],
    ]
)
MERGEKIT = {"semantics": "mergekit", "scope": "tensor"}


class TestTies(MergerContract):
    merger = Ties(Ties.Config())


class TestTiesOfMergekit(MergerContract):
    merger = Ties(Ties.Config(semantics="mergekit", scope="tensor", density=0.5))


class TestTiesSummedPerTensor(MergerContract):
    merger = Ties(Ties.Config(scope="tensor", density=0.4, aggregate="sum"))


class TestTiesOfEachExpert(MergerContract):
    merger = Ties(Ties.Config(density=[0.2, 0.5, 1.0], weights=[1.0, 0.0, 2.0]))
    symmetric = False


def merged(
    folder: Path, base: dict[str, Tensor], deltas: list[dict[str, Tensor]], **settings: Any
) -> dict[str, Tensor]:
    """Several tensors, in several blocks."""
    experts = [{name: base[name] + delta[name] for name in base} for delta in deltas]
    return merge_tensors(Ties(Ties.Config(**settings)), folder, base, experts, block=3, threads=2)[0]


def one(folder: Path, base: Tensor, deltas_E: Tensor, **settings: Any) -> Tensor:
    return merged(folder, {"w": base}, [{"w": delta} for delta in deltas_E], **settings)["w"]


def naive(
    base: Tensor, deltas_E: Tensor, density: float | list[float], weights: list[float] | None = None, scale: float = 1.0
) -> Tensor:
    """The original's definition, whole and in float64."""
    deltas_E = deltas_E.double().clone()
    factors = torch.tensor(weights or [1.0] * len(deltas_E)).double()[:, None]
    for delta, share in zip(deltas_E, np.broadcast_to(density, len(deltas_E)), strict=True):
        floor = delta.abs().kthvalue(max(1, int(delta.numel() * (1.0 - share)))).values
        delta[delta.abs() < floor] = 0
    deltas_E = deltas_E * factors
    sign = deltas_E.sum(0).sign()
    sign[sign == 0] = sign.sum().sign()
    agrees_E = deltas_E.sign() == sign
    share = (agrees_E * factors).sum(0)
    return base + scale * (deltas_E * agrees_E).sum(0) / share.where(share > 0, 1.0)


# ── golden numbers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("experts", "settings", "expected"),
    [
        pytest.param(2, {**MERGEKIT, "density": 0.5}, [4, 4, 1, 1, 1, 4, -3, 3], id="mergekit"),
        pytest.param(2, {"density": 0.5}, [4, 4, 2, 1, 1, 4, -1.5, 3], id="original"),
        pytest.param(
            2, {**MERGEKIT, "density": [0.25, 0.75]}, [4, 4, 0, 1.5, 1, 4, -3, 1], id="mergekit, of each its own"
        ),
        pytest.param(  # kept: 4, -2, 1, 0, 0, 3, -1, 2 and 2, 3, 0, 0, 0, -3, -4, 0, which counts twice
            2,
            {"density": [0.5, 0.3], "weights": [1, 2]},
            [11 / 3, 4, 2, 1, 1, -2, -2, 3],
            id="original, of each its own",
        ),
        pytest.param(3, {"density": 0.5}, [4, 3, -0.5, 1, 1, 4, -1.5, 6], id="released code, mask 0.5"),
        pytest.param(3, {"density": 0.2}, [5, 4, -1, 1, 1, 4, -3, 6], id="released code, mask 0.8"),
    ],
)
def test_golden_numbers_of_ties(tmp_path: Path, experts: int, settings: dict[str, Any], expected: list[float]) -> None:
    found = one(tmp_path, torch.ones(8), DELTAS[:experts], **settings)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"t0": [0.25, 0, 0, 0.25], "t1": [-8, 7, 6.5, 6.5]}),
        (MERGEKIT, {"t0": [0.25, -0.1875, 0.1875, 0.25], "t1": [-8, 7, 7, 8]}),
    ],
    ids=["model", "tensor"],
)
def test_the_share_is_of_the_model_or_of_each_tensor(
    tmp_path: Path, settings: dict[str, Any], expected: dict[str, list[float]]
) -> None:
    deltas = [
        {"t0": torch.tensor([1, 2, 3, 4]) / 16, "t1": torch.tensor([5.0, -6, 7, 8])},
        {"t0": torch.tensor([4, -3, 2, 1]) / 16, "t1": torch.tensor([-8.0, 7, 6, 5])},
    ]
    base = {"t0": torch.zeros(4), "t1": torch.zeros(4)}
    found = merged(tmp_path, base, deltas, density=0.5, **settings)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values, dtype=torch.float32), rtol=1e-6, atol=1e-7)


def test_what_cancels_follows_the_majority_or_is_positive(tmp_path: Path) -> None:
    deltas_E = torch.tensor([[-4.0, -3, 2, -5], [-4, -3, -2, -5]])
    assert one(tmp_path / "original", torch.zeros(4), deltas_E, density=0.75)[2] == -2
    assert one(tmp_path / "mergekit", torch.zeros(4), deltas_E, density=1.0, **MERGEKIT)[2] == 2
    draw_E = torch.tensor([[1.0, 3, -3], [-1, 3, -3]])
    assert one(tmp_path / "draw", torch.zeros(3), draw_E, density=1.0).tolist() == [0, 3, -3]


# ── definition ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0, [0.05, 1.0, 0.3]], ids=str)
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0], [0.5, 2.0, 0.0]], ids=str)
def test_agrees_with_the_definition(tmp_path: Path, density: float | list[float], weights: list[float] | None) -> None:
    noise = torch.Generator().manual_seed(3)
    base, deltas_E = torch.randn(500, generator=noise), 0.01 * torch.randn(3, 500, generator=noise)
    deltas_E = (base + deltas_E) - base  # what float32 weights can say
    found = one(tmp_path, base, deltas_E, density=density, weights=weights, scale=0.7)
    torch.testing.assert_close(found.double(), naive(base, deltas_E, density, weights, 0.7), rtol=1e-6, atol=1e-7)


FORMS: list[dict[str, Any]] = [{}, {"scope": "tensor"}, MERGEKIT, {"aggregate": "sum"}]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_expert_of_weight_zero_is_as_if_it_were_not_there(tmp_path: Path, form: dict[str, Any]) -> None:
    noise = torch.Generator().manual_seed(6)
    base, deltas_E = torch.randn(300, generator=noise), 0.01 * torch.randn(3, 300, generator=noise)
    some = {"density": [0.3, 0.9, 0.6], "weights": [1.0, 0.0, 0.5], **form}
    found = one(tmp_path / "three", base, deltas_E, **some)
    without = one(tmp_path / "two", base, deltas_E[::2], **{**some, "density": [0.3, 0.6], "weights": [1.0, 0.5]})
    assert torch.equal(found, without)
    assert torch.equal(one(tmp_path / "none", base, deltas_E, **{**some, "weights": [0.0] * 3}), base)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_density_for_all_is_the_same_one_for_each(tmp_path: Path, form: dict[str, Any]) -> None:
    noise = torch.Generator().manual_seed(7)
    base, deltas_E = torch.randn(300, generator=noise), torch.randn(3, 300, generator=noise)
    found = [one(tmp_path / str(d), base, deltas_E, density=d, **form) for d in (0.3, [0.3] * 3, [0.3, 0.3, 0.4])]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("case", ["distinct", "tied", "mostly zero"])
@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_thresholds_are_exact(tmp_path: Path, case: str, scope: str) -> None:
    """One expert: its kept entries are those that reach the order statistic, ties included."""
    noise = torch.Generator().manual_seed(4)
    sizes = {"a": 700, "b": 41}
    deltas = {name: torch.randn(size, generator=noise) for name, size in sizes.items()}
    if case == "tied":
        deltas = {name: (8 * delta).round() / 8 for name, delta in deltas.items()}
    elif case == "mostly zero":
        deltas = {name: delta * (torch.rand(len(delta), generator=noise) > 0.9) for name, delta in deltas.items()}
    found = merged(tmp_path, {n: torch.zeros(s) for n, s in sizes.items()}, [deltas], density=0.2, scope=scope)
    for name, delta in deltas.items():
        pool = torch.cat(list(deltas.values())) if scope == "model" else delta
        rank = max(1, int(len(pool) * 0.8))
        floor = float(np.partition(pool.abs().numpy(), rank - 1)[rank - 1])
        assert torch.equal(found[name], delta * (delta.abs() >= floor))


def test_bfloat16_results_are_one_rounding_away(tmp_path: Path) -> None:
    noise = torch.Generator().manual_seed(5)
    base = (0.02 * torch.randn(20_000, generator=noise)).bfloat16()
    experts = [(base + 1e-3 * torch.randn(len(base), generator=noise)).bfloat16() for _ in range(3)]
    deltas_E = torch.stack([expert.double() - base.double() for expert in experts])
    [found] = merge_tensors(Ties(Ties.Config()), tmp_path, {"w": base}, [{"w": e} for e in experts], block=4096)
    exact = naive(base.double(), deltas_E, 0.2)
    assert (found["w"].bfloat16() != exact.bfloat16()).float().mean() < 1e-4


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=12),
    density=st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]),
)
def test_small_whole_numbers_agree_with_the_definition(rows: list[tuple[int, ...]], density: float) -> None:
    """Where entries tie, cancel and vanish all the time, in blocks of three."""
    deltas_E = torch.tensor(rows, dtype=torch.float32).T.contiguous()
    with TemporaryDirectory() as folder:
        found = one(Path(folder), torch.ones(len(rows)), deltas_E, density=density)
    wanted = naive(torch.ones(len(rows)), deltas_E, density)
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-6, atol=1e-7)


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_density_that_comes_out_is_told() -> None:
    base, delta = torch.zeros(1, 8), torch.tensor([[0.0, 0, 0, 1, 1, 1, 1, 2]])
    merger, stats = Ties(Ties.Config(density=0.25)), dict[str, Any]()  # the sixth entry: 1, of which there are four
    block = Block("w", 0, (8,), base[0], delta)
    for each in merger.passes():
        stats[each.name] = each.measure(block, stats)
    assert merger.diagnostics(["math"], stats) == {"density/math": 5 / 8}
    faint = Block("w", 0, (8,), base[0], torch.tensor([[0.0, 0, 0, 0, 0, 0, 0, 2]]))
    for each in merger.passes():
        stats[each.name] = each.measure(faint, stats)
    assert merger.diagnostics(["math"], stats) == {"density/math": 1 / 8}


def test_nothing_is_counted_where_everything_is_kept() -> None:
    assert [each.name for each in Ties(Ties.Config(density=1.0)).passes()] == ["majority"]
    assert Ties(Ties.Config(density=1.0, semantics="mergekit")).passes() == []
    assert Ties(Ties.Config(density=1.0)).diagnostics(["math"], {"majority": 3}) == {}
    block = Block("w", 0, (4,), torch.zeros(4), torch.tensor([[0.0, 1, 0, 2], [3.0, 1, 0, 2]]), ("math", "law"))
    Ties(Ties.Config(density=1.0)).merge(block, {"majority": 3})
    assert block.told == {"density/math": 1 / 2, "density/law": 3 / 4}


def test_a_trim_that_does_not_do_what_was_asked_is_remarked_on() -> None:
    def said(found: float, **settings: Any) -> str:
        return " ".join(Ties(Ties.Config(**settings)).remarks(["math"], {"density/math": found}))

    assert said(0.2) == said(0.22) == ""
    assert said(0.14).startswith("Expert 'math': trimming to a density of 0.2 has left 14.0%, for no more of")
    assert "has left 37.0%, for many entries have the very magnitude of the threshold" in said(0.37)
    assert "A density of 1 trims nothing" in said(0.9, density=1.0)
    assert said(0.9, density=1.0, aggregate="sum") == ""  # mergekit's dare_ties means just that


def test_where_most_weights_never_moved_the_model_is_read_half_as_often(tmp_path: Path) -> None:
    """The threshold is then zero; nothing else changes."""
    noise = torch.Generator().manual_seed(6)
    base = {"w": torch.randn(50, 40, generator=noise)}
    for share, readings in ((0.1, 2), (0.5, 4)):
        moved = torch.rand(50, 40, generator=noise) < share
        deltas = [{"w": torch.randn(50, 40, generator=noise) * moved} for _ in range(2)]
        experts = [{"w": base["w"] + delta["w"]} for delta in deltas]
        read: dict[int, int] = {}
        [found] = merge_tensors(Ties(Ties.Config()), tmp_path / str(share), base, experts, report=read.__setitem__)
        assert max(read.items()) == (readings * 3 * base["w"].nbytes,) * 2
        flat = torch.stack([expert["w"] - base["w"] for expert in experts]).flatten(1)
        wanted = naive(base["w"].flatten(), flat, 0.2)
        torch.testing.assert_close(found["w"].flatten().double(), wanted.double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "1 weights for 2 experts"), ([1.0, -1.0], "cannot be negative, and one is -1"), ([], "0 weights for 2")],
)
def test_weights_that_do_not_fit_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ties(Ties.Config(weights=weights)).check(["a", "b"])


def test_another_number_of_densities_is_refused() -> None:
    with pytest.raises(ValueError, match="3 densities for 2 experts"):
        Ties(Ties.Config(density=[0.1, 0.2, 0.3])).check(["a", "b"])


@pytest.mark.parametrize("density", [0.0, 1.5, [0.5, 1.5]], ids=str)
def test_densities_outside_are_refused(density: float | list[float]) -> None:
    with pytest.raises(ValidationError):
        Ties.Config(density=density)


def test_presets_are_settings_of_ties() -> None:
    assert {name: Ties.Config(**preset.settings) for name, preset in Ties.presets.items()} == {
        "paper": Ties.Config(),
        "released-code": Ties.Config(),
    }
