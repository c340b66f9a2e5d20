"""DELLA: probabilities, rescaling, election, draws that depend on nothing else, and what every merger must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_sparse import Della
from m2rl_merger_sparse.della import row_ranks


class TestDella(MergerContract):
    merger = Della(Della.Config())
    symmetric = False  # draws go with the expert's name, and the contract names experts by their place


class TestDellaOfMergekit(MergerContract):
    merger = Della(Della.Config(rescale="l1", elect=False, weights=[1.0, 0.5, 2.0], scale=0.5))
    symmetric = False


class TestDellaOfEachExpert(MergerContract):
    merger = Della(Della.Config(density=[0.3, 0.5, 0.8]))
    symmetric = False


def block_of(deltas_E: Tensor, *, offset: int = 0, name: str = "w", names: tuple[str, ...] = ()) -> Block:
    names = names or tuple(f"expert-{index}" for index in range(len(deltas_E)))
    shape = tuple(deltas_E.shape[1:])
    return Block(name, offset, shape, torch.zeros(shape), deltas_E, names)


def keeps(deltas_E: Tensor, expert: int = 0, seed: int = 0, **place: Any) -> Tensor:
    return Della(Della.Config(density=0.5, epsilon=0.3, seed=seed)).drawn(block_of(deltas_E, **place), expert)[1]


def test_ranks_go_by_magnitude_and_then_by_position() -> None:
    magnitudes_RN = torch.tensor([[3.0, 0, 2, 0], [1, 1, 1, 5]])
    assert row_ranks(magnitudes_RN).tolist() == [[3, 0, 2, 1], [0, 1, 2, 3]]
    noise = torch.rand(20, 300, generator=torch.Generator().manual_seed(1)).round(decimals=2)
    assert torch.equal(row_ranks(noise), noise.argsort(dim=1, stable=True).argsort(1).float())


def test_probabilities_are_linear_in_the_rank() -> None:
    _, _, chance_RN = Della(Della.Config(density=0.5, epsilon=0.2)).drawn(block_of(torch.tensor([[[0.0, 9, 2]]])), 0)
    torch.testing.assert_close(chance_RN, torch.tensor([[0.3, 0.7, 0.5]]))
    _, _, single = Della(Della.Config(density=0.5, epsilon=0.2)).drawn(block_of(torch.ones(1, 3, 1)), 0)
    torch.testing.assert_close(single, torch.full((3, 1), 0.5))  # a row of one entry has no ranks
    each, block = Della(Della.Config(density=[0.5, 0.7], epsilon=0.2)), block_of(torch.tensor([[[0.0, 9, 2]]] * 2))
    torch.testing.assert_close(each.drawn(block, 0)[2], torch.tensor([[0.3, 0.7, 0.5]]))
    torch.testing.assert_close(each.drawn(block, 1)[2], torch.tensor([[0.5, 0.9, 0.7]]))


def test_keeps_as_many_as_it_should() -> None:
    """Within four standard deviations, for all entries, and for the smaller and the larger half of each row."""
    deltas_E = torch.randn(1, 400, 500, generator=torch.Generator().manual_seed(2))
    keep_RN = keeps(deltas_E)
    large_RN = row_ranks(deltas_E[0].abs()) >= 250
    for chosen, share in ((keep_RN, 0.5), (keep_RN[large_RN], 0.65), (keep_RN[~large_RN], 0.35)):
        deviation = (share * (1 - share) / chosen.numel()) ** 0.5
        assert abs(chosen.float().mean().item() - share) < 4 * deviation


def test_rescaling_keeps_the_expectation(tmp_path: Path) -> None:
    """By 1/p each entry's mean over many seeds is the entry; by L1 the norm of each tensor stays."""
    delta = torch.tensor([[[1.0, -2.0, 4.0, 0.5]]]).expand(1, 4000, 4).contiguous()
    merger = Della(Della.Config(density=0.5, epsilon=0.3))
    mean = merger.merge(block_of(delta), {})[0].mean(0)
    deviation = (delta[0, 0] ** 2 * (1 / torch.tensor([0.4, 0.6, 0.8, 0.2]) - 1) / 4000).sqrt()
    assert ((mean - delta[0, 0]).abs() < 4 * deviation).all()
    merger = Della(Della.Config(rescale="l1"))
    (found,) = merge_tensors(merger, tmp_path, {"w": torch.zeros(4000, 4)}, [{"w": delta[0]}], block=100)
    torch.testing.assert_close(found["w"].abs().sum(), delta.abs().sum())


def test_draws_depend_on_seed_expert_tensor_and_row_alone() -> None:
    deltas_E = torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(3))
    whole = keeps(deltas_E, 1)
    assert torch.equal(keeps(deltas_E[:, 2:4], 1, offset=100), whole[2:4])
    assert torch.equal(keeps(deltas_E.flip(0), 0, names=("expert-1", "expert-0")), whole)
    same = deltas_E[1:].expand(2, 6, 50)
    assert not torch.equal(keeps(same, 0), keeps(same, 1))
    for other in (keeps(deltas_E, 1, seed=1), keeps(deltas_E, 1, name="v"), keeps(deltas_E, 1, offset=50)):
        assert not torch.equal(other, whole)


def test_elects_signs_and_averages_what_agrees() -> None:
    """Every entry is all but surely kept at a density near one: TIES without trimming."""
    deltas_E = torch.tensor([[[4.0, -2, 1]], [[2.0, 3, -1]], [[-1.0, 1, -2]]])
    config = Della.Config(density=0.9999, epsilon=0.0)
    found = Della(config).merge(block_of(deltas_E), {})[0]
    torch.testing.assert_close(found, torch.tensor([[3.0, 2.0, -1.5]]), rtol=2e-4, atol=0)
    summed = Della(config.model_copy(update={"elect": False})).merge(block_of(deltas_E), {})[0]
    torch.testing.assert_close(summed, torch.tensor([[5.0, 2.0, -2.0]]), rtol=2e-4, atol=0)


def test_tells_the_density_that_is_left() -> None:
    """Entries that are zero count for nothing, kept or not."""
    noise = torch.Generator().manual_seed(5)
    deltas_E = torch.randn(2, 30, 40, generator=noise) * (torch.rand(2, 30, 40, generator=noise) < 0.7)
    block, merger = block_of(deltas_E), Della(Della.Config())
    merger.merge(block, {})
    kept_E = [merger.drawn(block, expert)[1] & (delta != 0) for expert, delta in enumerate(deltas_E)]
    wanted = {f"density/{name}": kept.float().mean().item() for name, kept in zip(block.names_E, kept_E, strict=True)}
    assert block.told == pytest.approx(wanted)


def test_refuses_what_is_no_probability_and_wrong_weights() -> None:
    for density, epsilon in ((0.9, 0.15), (0.1, 0.15), (0.5, -0.1), ([0.5, 0.9], 0.15)):
        with pytest.raises(ValidationError):
            Della.Config(density=density, epsilon=epsilon)
    with pytest.raises(ValueError, match="1 densities for 2 experts"):
        Della(Della.Config(density=[0.5])).check(["a", "b"])
    with pytest.raises(ValueError, match="1 weights for 2 experts"):
        Della(Della.Config(weights=[1.0])).check(["a", "b"])
