"""SCE: golden numbers of both variants, its definition in float64, rounding, and what every merger must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_sce import Sce

DELTAS = torch.tensor(
    [
        [4, -2, 1, 0.5, 0, 3, -1, 2],
        [2, 3, -1, 0.5, 0, -3, -4, 0.25],
        [-1, 1, -2, 0.5, 0, 0, 2, 8],
    ]
)


class TestSce(MergerContract):
    merger = Sce(Sce.Config())


class TestSelectiveSce(MergerContract):
    merger = Sce(Sce.Config(tau=0.3))


class TestSceOfMergekit(MergerContract):
    merger = Sce(Sce.Config(tau=0.3, semantics="mergekit"))


def merged(folder: Path, base: Tensor, deltas_E: Tensor, **settings: object) -> Tensor:
    """One tensor, in several blocks."""
    experts = [{"w": base + delta} for delta in deltas_E]
    merger = Sce(Sce.Config.model_validate(settings))
    return merge_tensors(merger, folder, {"w": base}, experts, block=max(3, base.numel() // 5), threads=2)[0]["w"]


def naive(base: Tensor, deltas_E: Tensor, tau: float = 1.0, semantics: str = "fuseai") -> Tensor:
    """The definition, all at once in float64; ties at the threshold are selected."""
    deltas_E = deltas_E.double()
    chosen_E = deltas_E
    if tau < 1:
        spread = len(deltas_E) * deltas_E.square().sum(0) - deltas_E.sum(0).square()  # nothing is lost, so ties stay
        count = int(int((spread > 0).sum()) * tau)
        floor = spread.flatten().sort().values[-count] if count else torch.inf
        chosen_E = deltas_E * (spread >= floor)
    energies = chosen_E.flatten(1).square().mean(1)
    if energies.sum() == 0 or (semantics == "mergekit" and energies.sum() < 1e-6):
        energies = torch.ones_like(energies)
    weights_E = (energies / energies.sum()).view(-1, *[1] * base.dim())
    kept_E = chosen_E if semantics == "mergekit" else deltas_E
    agrees_E = kept_E.sign() == torch.where(kept_E.sum(0) >= 0, 1.0, -1.0)
    share = (weights_E * agrees_E).sum(0)
    return base + (weights_E * agrees_E * kept_E).sum(0) / share.where(share > 0, 1.0)


def test_three_experts_by_hand(tmp_path: Path) -> None:
    """Golden case G9: all positions."""
    wanted = torch.tensor([3.94552, 2.69235, -0.653825, 1.5, 1, 4, -1.58173, 5.53139])
    for semantics in ("fuseai", "mergekit"):
        found = merged(tmp_path / semantics, torch.ones(8), DELTAS, semantics=semantics)
        torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-6)  # the golden numbers have six digits


def test_small_task_vectors_by_hand(tmp_path: Path) -> None:
    """Golden case G9, ten thousand times smaller: mergekit's shares become equal without a word, these do not."""
    ours = torch.tensor([2.94552, 1.69235, -1.653825, 0.5, 0, 3, -2.58173, 4.53139])
    mergekit = torch.tensor([3, 2, -1.5, 0.5, 0, 3, -2.5, 3.41667])
    for semantics, wanted in (("fuseai", ours), ("mergekit", mergekit)):
        found = merged(tmp_path / semantics, torch.zeros(8), DELTAS * 1e-4, semantics=semantics) / 1e-4
        torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-6)


def test_half_of_the_positions_by_hand(tmp_path: Path) -> None:
    """Golden case G10."""
    ours = torch.tensor([3.7168, 2.53862, -0.730692, 1.5, 1, 4, -1.9248, 6.4012])
    mergekit = torch.tensor([1, 1, 1, 1, 1, 4, -1.9248, 6.4012])
    for semantics, wanted in (("fuseai", ours), ("mergekit", mergekit)):
        found = merged(tmp_path / semantics, torch.ones(8), DELTAS, tau=0.5, semantics=semantics)
        torch.testing.assert_close(found, wanted, rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize("semantics", ["fuseai", "mergekit"])
@pytest.mark.parametrize("tau", [1.0, 0.3, 0.001])
def test_equals_its_definition_in_bfloat16(tmp_path: Path, tau: float, semantics: str) -> None:
    """At most one bf16 step from float64, and nearly everywhere equal to it."""
    noise = torch.Generator().manual_seed(3)
    base = (0.02 * torch.randn(400, 500, generator=noise)).bfloat16()
    scales_E = torch.tensor([1e-3, 2e-3, 5e-4, 1e-3, 3e-3]).view(-1, 1, 1)
    experts_E = (base.float() + scales_E * torch.randn(5, *base.shape, generator=noise)).bfloat16()
    deltas_E = experts_E.double() - base.double()
    exact = naive(base.double(), deltas_E, tau, semantics).bfloat16()
    experts = [{"w": expert} for expert in experts_E]
    merger = Sce(Sce.Config(tau=tau, semantics=semantics))
    found = merge_tensors(merger, tmp_path, {"w": base}, experts, block=1 << 17, threads=2)[0]["w"].bfloat16()
    apart = (found.view(torch.int16).int() - exact.view(torch.int16).int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 1e-4


@pytest.mark.parametrize("unmoved", [0.0, 0.6, 0.95])
def test_selects_by_rank_among_the_positions_that_vary(tmp_path: Path, unmoved: float) -> None:
    """Also with many equal variances, and where most positions did not move at all."""
    noise = torch.Generator().manual_seed(7)
    deltas_E = torch.randint(-3, 4, (4, 900), generator=noise).float()
    deltas_E *= torch.rand(900, generator=noise) >= unmoved
    for semantics in ("fuseai", "mergekit"):
        found = merged(tmp_path / semantics, torch.zeros(900), deltas_E, tau=0.2, semantics=semantics)
        wanted = naive(torch.zeros(900), deltas_E, 0.2, semantics).float()
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_too_small_a_tensor_to_select_from(tmp_path: Path) -> None:
    """⌊τ·n⌋ = 0: equal shares, or nothing merged at all."""
    deltas_E = torch.tensor([[1.0, 0.0, 2.0], [3.0, -1.0, 0.0]])
    ours = merged(tmp_path / "ours", torch.zeros(3), deltas_E, tau=0.1)
    assert ours.tolist() == [2.0, -1.0, 2.0]
    assert not merged(tmp_path / "other", torch.zeros(3), deltas_E, tau=0.1, semantics="mergekit").any()


def test_each_tensor_has_its_own_shares(tmp_path: Path) -> None:
    base = {"a": torch.zeros(4), "b": torch.zeros(4)}
    one = {"a": torch.full((4,), 3.0), "b": torch.full((4,), 1.0)}
    two = {"a": torch.full((4,), 1.0), "b": torch.full((4,), 3.0)}
    (found,) = merge_tensors(Sce(Sce.Config()), tmp_path, base, [one, two], block=3)
    assert torch.equal(found["a"], found["b"])
    torch.testing.assert_close(found["a"], torch.full((4,), 2.8))


def test_tells_shares_and_what_was_selected() -> None:
    """The weights of golden case G9; of eight positions three are selected at τ = 0.5, of which two tie."""
    family = {"base": torch.ones(8), **{name: 1 + delta for name, delta in zip("ABC", DELTAS, strict=True)}}
    found = diagnosed(Sce(Sce.Config()), family)
    assert found == pytest.approx({"weight/A": 0.236875, "weight/B": 0.264175, "weight/C": 0.49895}, abs=1e-6)
    assert diagnosed(Sce(Sce.Config(tau=0.5)), family)["selected"] == 3 / 8
    assert diagnosed(Sce(Sce.Config(tau=0.34)), family)["selected"] == 3 / 8
    assert diagnosed(Sce(Sce.Config(tau=0.1)), family)["selected"] == 0


def diagnosed(merger: Sce, family: dict[str, Tensor]) -> dict[str, float]:
    """What a merger tells of one tensor, through its own passes over two blocks."""
    names = tuple(name for name in family if name != "base")
    experts_E = torch.stack([family[name] for name in names])
    blocks = [Block("w", at, (4,), family["base"][at : at + 4], experts_E[:, at : at + 4], names) for at in (0, 4)]
    stats: dict[str, object] = {}
    for each in merger.passes():
        stats[each.name] = each.combine(*(each.measure(block, stats) for block in blocks))
    return dict(merger.diagnostics(names, stats))


def test_presets_are_settings_and_differ_in_the_selection() -> None:
    chosen = {name: Sce.Config.model_validate(preset.settings).tau for name, preset in Sce.presets.items()}
    assert chosen == {"paper": 0.1, "released-code": 1.0}
    assert Sce.Config().tau == 1.0


def test_refuses_shares_that_select_nothing_or_more_than_all() -> None:
    for tau in (0.0, 1.1):
        with pytest.raises(ValidationError):
            Sce.Config(tau=tau)
