"""The formulas of the losses: functions of tensors, all of them to be minimised.

``ratio`` is ρ = π_θ / π_old, ``advantage`` A, and ``log_ratio`` of a KL estimator log π_θ − log π_ref [nats].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """max(−ρA, −clip(ρ, 1 − low, 1 + high)·A)."""
    return (-ratio * advantage).maximum(-ratio.clamp(1.0 - low, 1.0 + high) * advantage)


def dual_clipped(ratio: Tensor, advantage: Tensor, low: float, high: float, dual: float) -> Tensor:
    """:func:`clipped`, but at most −dual·A where the advantage is negative, however large the ratio."""
    loss = clipped(ratio, advantage, low, high)
    return loss.minimum(-dual * advantage).where(advantage < 0, loss)


def sequence_log_ratio(logps_T: Tensor, old_logps_T: Tensor, sequence_T: Tensor, sequences: int) -> Tensor:
    """Mean log-ratio of each sequence, given to each of its tokens [T]: the logarithm of GSPO's ratio.

    Each entry's gradient goes to its own token's log-prob (GSPO-token, section 4.3 of the GSPO paper): the mean over a
    sequence's entries has the gradient of the mean log-ratio.

    Args:
        sequence_T: which sequence a token is of, from 0 to ``sequences`` − 1.
    """
    # In float64: a clip range of 3e-4 is narrower than the rounding of a long sum in float32.
    difference_T = (logps_T.detach() - old_logps_T).double()
    total_N = difference_T.new_zeros(sequences).index_add_(0, sequence_T, difference_T)
    count_N = sequence_T.bincount(minlength=sequences).clamp_min(1)
    mean_T = (total_N / count_N)[sequence_T].to(logps_T.dtype)
    return mean_T + (logps_T - logps_T.detach())


def weighted(ratio: Tensor, advantage: Tensor, logps: Tensor, high: float) -> Tensor:
    """−sg(min(ρ, 1 + high))·A·log π_θ: a policy gradient with a bounded weight; the weight carries no gradient."""
    return -ratio.detach().clamp(max=1.0 + high) * advantage * logps


def gated(ratio: Tensor, advantage: Tensor, positive: float, negative: float) -> Tensor:
    """−(4/τ)·σ(τ(ρ − 1))·A with τ chosen by the advantage's sign; at ρ = 1 its gradient is that of −ρA."""
    temperature = ratio.new_tensor(positive).where(advantage > 0, negative)
    return -(4.0 / temperature) * (temperature * (ratio - 1.0)).sigmoid() * advantage


def k1(log_ratio: Tensor) -> Tensor:
    """log π_θ − log π_ref with the gradient of :func:`k2`: its own gradient is zero in expectation."""
    half_square = k2(log_ratio)
    return log_ratio.detach() + (half_square - half_square.detach())


def k2(log_ratio: Tensor) -> Tensor:
    """½ (log π_θ − log π_ref)²: a biased value, whose expected gradient is that of KL(π_θ ‖ π_ref)."""
    return log_ratio.square() / 2.0


def k3(log_ratio: Tensor) -> Tensor:
    """r − 1 − log r with r = π_ref / π_θ: an unbiased value ≥ 0; its expected gradient is that of KL(π_ref ‖ π_θ)."""
    return (-log_ratio).expm1() + log_ratio
