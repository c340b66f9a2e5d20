"""Fisher, RegMean and WUDI: golden numbers, what each minimises, memory, and what every merger must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import StageError
from m2rl_core.interfaces import Merger
from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.types import Block
from m2rl_merger_evidence import Fisher, RegMean, Wudi

PLAIN = Fisher(Fisher.Config(normalize=False))


class TestFisher(MergerContract):
    merger = Fisher(Fisher.Config())


class TestPlainFisher(MergerContract):
    merger = PLAIN


class TestRegMean(MergerContract):
    merger = RegMean(RegMean.Config())


class TestWudi(MergerContract):
    merger = Wudi(Wudi.Config())


def merged(
    merger: Merger,
    folder: Path,
    experts: Sequence[Tensor],
    evidence: Mapping[str, Sequence[Tensor]] | None = None,
    base: Tensor | None = None,
) -> Tensor:
    """One tensor through the engine, in blocks of 3."""
    seen = {kind: [{"w": values} for values in each] for kind, each in (evidence or {}).items()}
    anchor = None if base is None else {"w": base}
    (output,) = merge_tensors(merger, folder, anchor, [{"w": x} for x in experts], evidence=seen, block=3)
    return output["w"]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ── Fisher ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fisher_by_hand(tmp_path: Path) -> None:
    """Golden case G16."""
    experts = [torch.arange(1.0, 5), torch.arange(5.0, 9)]
    fisher = [torch.tensor([1.0, 4, 0, 2]), torch.tensor([1.0, 1, 3, 0])]
    found = merged(PLAIN, tmp_path, experts, {"fisher": fisher})
    torch.testing.assert_close(found, torch.tensor([3, 2.8, 7, 4]), rtol=1e-5, atol=1e-6)


def test_fisher_normalised_does_not_depend_on_an_experts_scale(tmp_path: Path) -> None:
    experts, fisher = [noise(4, 5, seed=i) for i in (1, 2)], [noise(4, 5, seed=i).square() for i in (3, 4)]
    scaled = [fisher[0], 1e-9 * fisher[1]]
    merger = Fisher(Fisher.Config())
    one = merged(merger, tmp_path / "one", experts, {"fisher": fisher})
    other = merged(merger, tmp_path / "other", experts, {"fisher": scaled})
    torch.testing.assert_close(one, other)
    unequal = merged(PLAIN, tmp_path / "plain", experts, {"fisher": scaled})
    torch.testing.assert_close(unequal, experts[0], rtol=1e-3, atol=1e-3)


def test_fisher_averages_what_nobody_knows(tmp_path: Path) -> None:
    """Also where all information is tiny: the floor is relative."""
    fisher = [torch.tensor([0.0, 1e-12]), torch.tensor([0.0, 1e-12])]
    for name, merger in {"plain": PLAIN, "normalised": Fisher(Fisher.Config())}.items():
        experts = [torch.tensor([1.0, 1]), torch.tensor([4.0, 2])]
        found = merged(merger, tmp_path / name, experts, {"fisher": fisher})
        torch.testing.assert_close(found, torch.tensor([2.5, 1.5]))


def test_fisher_names_an_expert_without_information(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"Fisher of expert 'expert-1' is 0 everywhere"):
        merged(PLAIN, tmp_path, [noise(4)] * 2, {"fisher": [torch.ones(4), torch.zeros(4)]})


# ── RegMean ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_regmean_by_hand(tmp_path: Path) -> None:
    """Golden case G15; the layers are its transposes, for a weight here is [outputs, inputs]."""
    grams = [torch.tensor([[2.0, 1], [1, 2]]), torch.tensor([[1.0, 0], [0, 3]])]
    layers = [torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[5.0, 6], [7, 8]])]
    found = merged(RegMean(RegMean.Config(ratio=1.0)), tmp_path, layers, {"gram": grams})
    wanted = torch.tensor([[1.571429, 4.285714], [3.571429, 6.285714]])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_regmean_solves_its_least_squares(tmp_path: Path) -> None:
    """The layer whose outputs are nearest to each expert's on its own inputs, by torch's least squares in float64."""
    layers, inputs = [noise(7, 5, seed=i) for i in (1, 2, 3)], [noise(40, 5, seed=i) for i in (4, 5, 6)]
    found = merged(RegMean(RegMean.Config(ratio=1.0)), tmp_path, layers, {"gram": [x.T @ x for x in inputs]})
    outputs = torch.cat([x.double() @ w.double().T for x, w in zip(inputs, layers, strict=True)])
    wanted = torch.linalg.lstsq(torch.cat(inputs).double(), outputs).solution.T
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-5)


def test_regmean_without_off_diagonals_is_a_mean_by_input(tmp_path: Path) -> None:
    layers, grams = [noise(3, 2, seed=i) for i in (1, 2)], [torch.tensor([[1.0, 9], [9, 2]]), torch.eye(2)]
    found = merged(RegMean(RegMean.Config(ratio=0.0)), tmp_path, layers, {"gram": grams})
    wanted = torch.stack([(layers[0][:, 0] + layers[1][:, 0]) / 2, (2 * layers[0][:, 1] + layers[1][:, 1]) / 3], 1)
    torch.testing.assert_close(found, wanted)


def test_regmean_takes_the_mean_where_no_input_went(tmp_path: Path) -> None:
    """An input that is always 0, fewer inputs than columns, and tensors that no linear layer has."""
    layers = [noise(4, 3, seed=i) for i in (1, 2)]
    grams = [torch.tensor([[2.0, 0, 0], [0, 0, 0], [0, 0, 1]]), torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]])]
    merger = RegMean(RegMean.Config(ratio=1.0))
    found = merged(merger, tmp_path / "silent", layers, {"gram": grams})
    torch.testing.assert_close(found[:, 1], (layers[0] + layers[1])[:, 1] / 2)
    torch.testing.assert_close(found[:, 0], (2 * layers[0] + layers[1])[:, 0] / 3)
    one = [x[:, None] @ x[None] for x in (noise(3, seed=3), noise(3, seed=4))]
    few = merged(merger, tmp_path / "few", layers, {"gram": one})
    for x, layer in zip((noise(3, seed=3), noise(3, seed=4)), layers, strict=True):
        torch.testing.assert_close(few @ x, layer @ x, rtol=1e-3, atol=1e-3)
    (other,) = merge_tensors(
        merger,
        tmp_path / "other",
        None,
        [{"n": noise(3), "v": x} for x in layers],
        evidence={"gram": [{"v": g} for g in grams]},
    )
    assert torch.equal(other["n"], noise(3))


def test_regmean_refuses_what_is_no_gram_matrix(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"merging w: .*more samples"):
        merged(RegMean(RegMean.Config()), tmp_path, [noise(2, 2)] * 2, {"gram": [-torch.eye(2)] * 2})


# ── WUDI ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_wudi_by_hand(tmp_path: Path) -> None:
    """Golden case G17."""
    deltas = [torch.diag(torch.tensor([0.001, 0.002])), torch.tensor([[0, 0.001], [0.001, 0]])]
    found = merged(Wudi(Wudi.Config()), tmp_path, deltas, base=torch.zeros(2, 2))
    wanted = torch.tensor([[0.000285715, 0.000384615], [0.000714286, 0.001230771]])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 20])
def test_wudi_descends_the_loss_as_it_is_written(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd on the loss of the whole matrices, three experts, one of which has not moved."""
    monkeypatch.setattr("m2rl_merger_evidence.wudi.ROWS", 10)
    base = noise(6, 4)
    experts = [base + 1e-2 * noise(6, 4, seed=i) for i in (1, 2)] + [base]
    deltas = torch.stack(experts).double() - base.double()
    task = deltas.sum(0).requires_grad_()
    adam = torch.optim.Adam([task], lr=1e-4)
    for _ in range(steps):
        loss = torch.tensor(0.0, dtype=torch.float64)
        for delta in deltas[:2]:
            loss = loss + ((task - delta) @ delta.T).square().sum() / delta.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = merged(Wudi(Wudi.Config(steps=steps, lr=1e-4)), tmp_path, experts, base=base)
    torch.testing.assert_close(found - base, task.detach().float(), rtol=1e-3, atol=1e-6)


def test_wudi_averages_what_is_no_matrix_and_keeps_what_never_moved(tmp_path: Path) -> None:
    vectors = [noise(5, seed=i) for i in (1, 2)]
    found = merged(Wudi(Wudi.Config()), tmp_path / "vector", vectors, base=noise(5))
    torch.testing.assert_close(found, (vectors[0] + vectors[1]) / 2)
    matrix = noise(4, 3)
    torch.testing.assert_close(merged(Wudi(Wudi.Config()), tmp_path / "matrix", [matrix] * 2, base=matrix), matrix)


def test_wudi_needs_a_base() -> None:
    with pytest.raises(ValueError, match="base"):
        Wudi(Wudi.Config()).merge(Block("w", 0, (2, 2), None, noise(2, 2, 2)), {})
