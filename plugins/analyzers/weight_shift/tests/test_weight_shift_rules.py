"""When a weight counts as changed, against NumPy and hand cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from m2rl_analyzer_weight_shift.kernel import Kernel
from m2rl_analyzer_weight_shift.rules import (
    eta_for,
    eta_is_exact,
    histogram,
    mark_beyond_a_step,
    mark_by_bits,
    neighbours,
    pairs,
)
from m2rl_analyzer_weight_shift.sketch import Projection
from m2rl_analyzer_weight_shift.tally import RULES

EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1e-3, -1e-3, 6.1e-5, 3.0]


def changed_by(base: Tensor, model: Tensor, eta: float = 1e-3) -> dict[str, int]:
    kernel = Kernel(1, eta, Projection(0))
    kernel.load([base, model])
    found = kernel.counts()
    return {rule: int(found.both_REE[r, 0, 0]) for r, rule in enumerate(RULES)}


def test_eta_rule_against_plain_numpy() -> None:
    noise = np.random.default_rng(1)
    base = noise.normal(size=5000).astype(np.float32)
    model = base * (1 + noise.normal(scale=2e-3, size=5000).astype(np.float32))
    wanted = np.abs(model - base) > np.float32(1e-3) * np.maximum(np.abs(model), np.abs(base))
    assert 1000 < wanted.sum() < 4000
    assert changed_by(torch.tensor(base), torch.tensor(model))["eta"] == wanted.sum()


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_step_against_nextafter_of_numpy(kind: type[np.floating[np.typing.NBitBase]]) -> None:
    base = np.array(EDGES, dtype=kind)
    below, above = neighbours(torch.tensor(base).float(), torch.tensor(base).dtype)
    assert np.array_equal(below.numpy(), np.nextafter(base, kind(-np.inf)).astype(np.float32))
    assert np.array_equal(above.numpy(), np.nextafter(base, kind(np.inf)).astype(np.float32))
    up = np.nextafter(base, kind(np.inf))
    twice = np.nextafter(up, kind(np.inf))
    assert changed_by(torch.tensor(base), torch.tensor(up))["ulp"] == 0
    assert changed_by(torch.tensor(base), torch.tensor(up))["exact"] == len(base)
    assert changed_by(torch.tensor(base), torch.tensor(twice))["ulp"] == len(base)


def test_a_step_against_nextafter_of_torch_for_every_finite_bfloat16() -> None:
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    largest = torch.finfo(torch.bfloat16).max
    finite = every[every.float().abs() < largest]
    below, above = neighbours(finite.float(), torch.bfloat16)
    for found, way in ((below, -1.0), (above, 1.0)):
        wanted = torch.nextafter(finite, torch.tensor(way * largest, dtype=torch.bfloat16))
        assert torch.equal(found, wanted.float())


def test_with_the_papers_eta_every_step_of_bfloat16_is_a_change() -> None:
    every = torch.arange(1, 0x7F7F).to(torch.int16).view(torch.bfloat16)
    after = torch.arange(2, 0x7F80).to(torch.int16).view(torch.bfloat16)
    relative = (after.double() - every.double()) / after.double()
    assert relative.min() > 2**-9
    assert eta_is_exact(1e-3, torch.bfloat16)
    assert relative.min() == 2**-8
    assert not eta_is_exact(2**-8, torch.bfloat16)
    assert not eta_is_exact(1e-3, torch.float16)
    assert not eta_is_exact(1e-3, torch.float32)


def test_the_short_way_for_bfloat16_counts_like_the_long_one() -> None:
    noise = torch.Generator().manual_seed(2)
    base = torch.randn(3000, generator=noise).bfloat16()
    model = (base.float() + 5e-3 * torch.randn(3000, generator=noise)).bfloat16()
    short, long = changed_by(base, model), changed_by(base.float(), model.float())
    assert short["eta"] == long["eta"] == short["exact"]
    assert 0 < short["ulp"] < short["exact"] < 3000
    assert long["ulp"] > short["ulp"], "steps of float32 are narrower"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bits_tell_what_floats_tell_of_every_finite_weight(dtype: torch.dtype) -> None:
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    finite = every[every.isfinite()]
    info = torch.finfo(dtype)
    step = info.smallest_normal * info.eps  # the smallest number above zero
    edges = [0.0, step, 2 * step, 3 * step, info.smallest_normal, 1.0, 1 + info.eps, 3.14, info.max]
    for edge in [*edges, *(-each for each in edges)]:
        weights_SN = torch.stack([torch.full_like(finite, edge), finite, finite.flip(0)])
        exact, ulp, ulp_by_floats, room = np.ones((4, 2, len(finite) + 3), np.bool_)
        mark_by_bits(weights_SN, exact, ulp, np.empty(weights_SN.numel(), np.int16))
        floats = weights_SN.float()
        inner = slice(0, len(finite))
        mark_beyond_a_step(floats[1:], floats[0], dtype, ulp_by_floats[:, inner], room[:, inner])
        assert np.array_equal(ulp[:, inner], ulp_by_floats[:, inner])
        assert np.array_equal(exact[:, inner], (floats[1:] != floats[0]).numpy())
        assert not exact[:, len(finite) :].any()
        assert not ulp[:, len(finite) :].any()


@pytest.mark.parametrize("count", [512, 1000])
def test_a_block_of_one_type_is_measured_like_one_of_single_tensors(count: int) -> None:
    noise = torch.Generator().manual_seed(5)
    base = torch.randn(count, generator=noise).bfloat16()
    models = base.float() * (1 + 0.01 * (torch.rand(3, count, generator=noise) < 0.4))
    weights_SN = torch.cat([base[None], models.bfloat16()])
    found = []
    for sources in (weights_SN, list(weights_SN)):
        kernel = Kernel(3, 1e-3, Projection(0))
        kernel.load(sources)
        changes = kernel.changes()
        found.append((changes, kernel.tally("w", 2)))
    (changes, one), (again, other) = found
    assert np.array_equal(changes, again)
    assert changes.sum() == 3 * count
    for field in ("size", "both_REE", "dots_EE", "squares_EE", "sketch_EED"):
        assert np.array_equal(getattr(one, field), getattr(other, field))
    assert one.both_REE[1].diagonal().tolist() == (models.bfloat16() != base).sum(1).tolist()


def test_a_finer_model_is_judged_by_the_steps_of_the_coarser_type() -> None:
    base = torch.ones(4).bfloat16()
    model = torch.tensor([1.0, 1.004, 1.0078, 1.02])
    assert changed_by(base, model) == {"eta": 3, "exact": 3, "ulp": 1}


def test_zero_and_minus_zero_are_the_same_weight() -> None:
    assert changed_by(torch.tensor([0.0, -0.0]), torch.tensor([-0.0, 0.0])) == {"eta": 0, "exact": 0, "ulp": 0}


def test_pairs_against_sums() -> None:
    flags = np.random.default_rng(3).random((3, 4, 512)) < 0.3
    assert np.array_equal(pairs(flags), np.einsum("rin,rjn->rij", flags.astype(int), flags.astype(int)))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_eta_for_a_share_against_brute_force(share: float) -> None:
    changes = np.exp(np.random.default_rng(4).normal(-7, 2, size=20000)).clip(max=2).astype(np.float32)
    changes[:6000] = 0
    found = eta_for(share, histogram(torch.tensor(changes)[None])[0])
    assert found is not None
    assert found == pytest.approx(np.quantile(changes, 1 - share), rel=0.008)
    assert np.mean(changes > found) == pytest.approx(share, abs=0.005)


def test_there_is_no_eta_where_too_few_weights_changed() -> None:
    changes = torch.zeros(1, 1000)
    changes[0, :299] = 0.5
    assert eta_for(0.3, histogram(changes)[0]) is None
    changes[0, :301] = 0.5
    assert eta_for(0.3, histogram(changes)[0]) == pytest.approx(0.5, rel=0.008)
