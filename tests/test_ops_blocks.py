"""Norm and rotation as fused functions, against transformers' own modules: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, apply_rotary_pos_emb

from m2rl_core.ops import rms_norm, rotate

CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def drawn(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def assert_same(mine: Tensor, theirs: Tensor, inputs: tuple[Tensor, ...], tolerance: float) -> None:
    """Values, and gradients with respect to ``inputs``."""
    assert mine.dtype == theirs.dtype
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    slope = drawn(*mine.shape, dtype=mine.dtype, seed=9).detach()
    for one, other in zip(
        torch.autograd.grad(mine, inputs, slope), torch.autograd.grad(theirs, inputs, slope), strict=True
    ):
        assert one.dtype == other.dtype
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=4 * tolerance, atol=4 * tolerance * max(1.0, size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 48), (2, 7, 4, 32), (1, 16)])
def test_the_norm_is_that_of_transformers(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    theirs = Qwen3RMSNorm(shape[-1], eps=1e-6)
    with torch.no_grad():
        theirs.weight.copy_(drawn(shape[-1], dtype=torch.float32, seed=1))
    states = drawn(*shape, dtype=dtype, seed=0)
    assert_same(rms_norm(states, theirs.weight, 1e-6), theirs(states), (states, theirs.weight), CLOSE[dtype])


def test_the_norms_gradient_is_that_of_its_formula_in_float64() -> None:
    states, weight = drawn(4, 3, 8, dtype=torch.float64, seed=0), drawn(8, dtype=torch.float64, seed=1)
    plain = states / (states.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    assert_same(rms_norm(states, weight, 1e-5), plain, (states, weight), CLOSE[torch.float64])


def test_a_norm_of_zeros_is_zero_and_its_gradient_finite() -> None:
    states, weight = torch.zeros(2, 4, requires_grad=True), torch.ones(4, requires_grad=True)
    out = rms_norm(states, weight, 1e-6)
    assert not out.any()
    torch.testing.assert_close(torch.autograd.grad(out.sum(), states)[0], torch.full((2, 4), 1e3))


def test_the_norm_rounds_once_to_the_type_that_is_asked_for() -> None:
    states, weight = drawn(6, 16, dtype=torch.float32, seed=0), drawn(16, dtype=torch.float32, seed=1)
    rounded = rms_norm(states, weight, 1e-6, torch.bfloat16)
    assert torch.equal(rounded, rms_norm(states, weight, 1e-6).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("heads", "size"), [(4, 32), (1, 2)])
def test_the_rotation_is_that_of_transformers(heads: int, size: int, dtype: torch.dtype) -> None:
    states = drawn(2, 9, heads, size, dtype=dtype, seed=0)
    angles = drawn(2, 9, size // 2, dtype=dtype, seed=1).detach().repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    theirs = apply_rotary_pos_emb(states, states, cos, sin, unsqueeze_dim=2)[0]
    assert_same(rotate(states, cos.unsqueeze(2), sin.unsqueeze(2)), theirs, (states,), CLOSE[dtype])


def test_the_rotation_of_rounded_states_is_not_rounded_again() -> None:
    states = drawn(1, 3, 2, 8, dtype=torch.bfloat16, seed=0)
    angles = drawn(1, 3, 1, 8, dtype=torch.float32, seed=1).detach()
    out = rotate(states, angles.cos(), angles.sin())
    assert torch.equal(out, rotate(states.float(), angles.cos(), angles.sin()))
    assert torch.autograd.grad(out.sum(), states)[0].dtype == torch.bfloat16
