"""Parts of a transformer block that cost a CPU many small passes, as autograd functions of few.

Formulas are those of transformers' modules; statistics and sums run in float32 (in float64 for float64).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["rms_norm", "rotate"]


def _wide(tensor: Tensor) -> Tensor:
    """In the precision of statistics: float32, or what is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        wide = _wide(states)
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = length.square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
        normed = wide * scale
        ctx.save_for_backward(normed, scale, weight)
        ctx.dtype = states.dtype
        out: Tensor = (normed * weight).to(dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """With y = w · x̂ and g = w · dy: dw = Σ dy · x̂ over the rows, dx = (g − x̂ · mean(g · x̂)) · scale."""
        normed, scale, weight = ctx.saved_tensors
        grad, wide = _wide(grad), _wide(weight)
        slopes = (grad * normed).flatten(0, -2)
        along = (slopes @ wide).view(scale.shape).div_(-normed.shape[-1])
        grad_states = (grad * wide).addcmul_(normed, along).mul_(scale)
        return grad_states.to(ctx.dtype), slopes.sum(0).to(weight.dtype), None, None


def rms_norm(states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype | None = None) -> Tensor:
    """x / sqrt(mean(x²) + ε) · w over the last axis.

    Source: Zhang and Sennrich, "Root mean square layer normalization", https://arxiv.org/abs/1910.07467, equation 4.

    Args:
        states: [..., H].
        weight: [H].
        epsilon: keeps the root above 0.
        dtype: of the result; default: the wider of the two.
    """
    run: Callable[..., Tensor] = _RmsNorm.apply
    return run(states, weight, epsilon, dtype or torch.result_type(states, weight))


def _swapped(states: Tensor) -> Tensor:
    """The two halves of the last axis change places."""
    first, second = states.chunk(2, -1)
    return torch.cat((second, first), -1)


def _signed(sin: Tensor) -> Tensor:
    """Negative in the first half; made anew in each pass, as every layer would keep its own."""
    first, second = sin.chunk(2, -1)
    return torch.cat((-first, second), -1)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = states.dtype
        return (states * cos).addcmul_(_swapped(states), _signed(sin))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return (grad * cos).add_(_swapped(grad * _signed(sin))).to(ctx.dtype), None, None


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of the halves of each head: (a, b) becomes (a · cos − b · sin, b · cos + a · sin).

    Source: Su et al., https://arxiv.org/abs/2104.09864, section 3.4; halves as GPT-NeoX and transformers pair them.

    Args:
        states: [..., heads, D].
        cos, sin: [..., 1, D], of each token's position; without a gradient.

    Returns:
        In the widest type of the three.
    """
    run: Callable[..., Tensor] = _Rotate.apply
    return run(states, cos, sin)
