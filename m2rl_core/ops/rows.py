"""Row functions over logits in plain torch: the reference, and the CPU's own path.

They work on logits [C, V'] that a matrix product has just written (float32 or bfloat16, unscaled; ``scale`` is one over
the temperature), know nothing of hidden states, and give float32 statistics [C]. ``m2rl_core.ops.triton_rows`` offers
the same functions on CUDA. Rows are taken a few at a time, so that every elementwise pass but the first finds its
operands in the processor's cache: that is what makes this as fast as compiled code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from m2rl_core.ops import contrast
from m2rl_core.types import Divergence

TILE_ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Logits per pass. On a CPU 512 KiB in float32: the tile and one temporary stay in a level-2 cache of 1 MiB."""
FLOOR = -200.0
"""Log-masses are raised to this before they are multiplied by their mass, which is 0 in float32: 0 · −inf is NaN."""
LOWEST = torch.finfo(torch.float32).min
ROUNDING = 1e-6
"""Of the log-normaliser: how far above 0 a log-prob may come by rounding alone."""


class Partial(NamedTuple):
    """Statistics of a slice of the vocabulary; x are the scaled logits. All float32 [C]."""

    peak: Tensor
    """max x"""
    mass: Tensor
    """Σ exp(x − peak)"""
    moment: Tensor
    """Σ exp(x − peak) · (x − peak), for the entropy."""
    target: Tensor
    """x of the row's own token where the slice holds it, else −inf."""


class Comparison(NamedTuple):
    """Statistics of whole rows of two heads, float32 [C] each; ``value`` is the divergence [nats]."""

    lse: Tensor
    logp: Tensor
    entropy: Tensor
    teacher_lse: Tensor
    value: Tensor


def _tiles(logits: Tensor) -> list[slice]:
    """Rows, a few at a time."""
    size = max(1, TILE_ELEMENTS[logits.device.type] // logits.shape[1])
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def _own(ids: Tensor, offset: int, width: int) -> tuple[Tensor, Tensor]:
    """(column of each row's own token within the slice [C, 1], whether the slice holds it [C, 1])."""
    at = ids[:, None] - offset
    return at.clamp(0, width - 1), (at >= 0) & (at < width)


def summarise(logits: Tensor, ids: Tensor, offset: int, scale: float) -> Partial:
    """Statistics of the slice that holds the tokens ``offset`` … ``offset + V' − 1``."""
    peak, mass, moment = torch.empty((3, len(logits)), device=logits.device)
    for rows in _tiles(logits):
        tile = logits[rows].float()
        highest = tile.amax(1, keepdim=True)
        below = tile - highest.clamp_min(LOWEST)
        if scale != 1.0:
            below.mul_(scale)
        each = below.clamp_min_(FLOOR).exp()
        peak[rows] = highest[:, 0] * scale
        torch.sum(each, 1, out=mass[rows])
        torch.sum(each.mul_(below), 1, out=moment[rows])
    at, held = _own(ids, offset, logits.shape[1])
    target = torch.where(held, logits.gather(1, at).float() * scale, -torch.inf)[:, 0]
    return Partial(peak, mass, moment, target)


def join(a: Partial, b: Partial) -> Partial:
    """Statistics of two slices together."""
    peak = torch.maximum(a.peak, b.peak)
    down_a, down_b = ((part.peak - peak.clamp_min(LOWEST)).clamp_min(FLOOR) for part in (a, b))
    mass_a, mass_b = a.mass * down_a.exp(), b.mass * down_b.exp()
    moment = a.moment * down_a.exp() + mass_a * down_a + b.moment * down_b.exp() + mass_b * down_b
    return Partial(peak, mass_a + mass_b, moment, torch.maximum(a.target, b.target))


def finish(partial: Partial) -> tuple[Tensor, Tensor, Tensor]:
    """(log-normaliser, log-prob, entropy) of whole rows.

    A log-prob above 0 by rounding is 0; one further above stays as it is, for the caller to refuse.
    """
    log_mass = partial.mass.log()
    lse = partial.peak + log_mass
    logp = (partial.target - partial.peak) - log_mass  # not target − lse: that loses digits where logits are large
    logp = torch.where(logp <= ROUNDING * (1.0 + lse.abs()), logp.clamp_max(0.0), logp)
    return lse, logp, log_mass - partial.moment / partial.mass


def _policy_gradient(
    logp: Tensor, own: tuple[Tensor, Tensor], entropy: Tensor, grad_logp: Tensor, grad_entropy: Tensor | None
) -> Tensor:
    """g · (1_y − p) − h · p · (log p + entropy) in place of ``logp`` [C, V']; the last four are [C, 1]."""
    at, held = own
    if grad_entropy is None:
        grad = logp.exp_().mul_(-grad_logp)
    else:
        p = logp.exp()
        grad = logp.clamp_min_(FLOOR).add_(entropy).mul_(grad_entropy).add_(grad_logp).mul_(p).neg_()
    return grad.scatter_add_(1, at, torch.where(held, grad_logp, 0.0))


def gradient_(
    logits: Tensor,
    ids: Tensor,
    offset: int,
    lse: Tensor,
    entropy: Tensor,
    grad_logp: Tensor,
    grad_entropy: Tensor,
    scale: float,
) -> None:
    """Turn a slice's logits, in place, into the gradient with respect to themselves (before ``scale``)."""
    own, held = _own(ids, offset, logits.shape[1])
    g, h = _slopes(grad_logp, grad_entropy, scale)
    for rows in _tiles(logits):
        logp = _log_probs_(logits[rows].float(), lse[rows], scale)
        among = (own[rows], held[rows])
        grad = _policy_gradient(logp, among, entropy[rows, None], g[rows], None if h is None else h[rows])
        if logits.dtype != torch.float32:
            logits[rows] = grad


def _slopes(grad_logp: Tensor, grad_entropy: Tensor, scale: float) -> tuple[Tensor, Tensor | None]:
    """Incoming gradients [C, 1] times ``scale``; ``None`` for the entropy's where it is 0 throughout."""
    return grad_logp[:, None] * scale, grad_entropy[:, None] * scale if bool(grad_entropy.any()) else None


def _log_probs_(logits: Tensor, lse: Tensor, scale: float) -> Tensor:
    """Log-probs in place of float32 logits."""
    return (logits if scale == 1.0 else logits.mul_(scale)).sub_(lse[:, None])


def compare(student: Tensor, teacher: Tensor, ids: Tensor, scale: float, divergence: Divergence) -> Comparison:
    """Statistics of whole rows of two heads over the same vocabulary."""
    lse, logp, entropy = finish(summarise(student, ids, 0, scale))
    teacher_lse = finish(summarise(teacher, ids, 0, scale))[0]
    value = torch.empty_like(lse)
    for rows in _tiles(student):
        log_s = _log_probs_(_copy(student[rows]), lse[rows], scale)
        log_t = _log_probs_(_copy(teacher[rows]), teacher_lse[rows], scale)
        value[rows] = contrast.value(log_s, log_t, divergence)
    return Comparison(lse, logp, entropy, teacher_lse, value)


def compare_gradient_(
    student: Tensor,
    teacher: Tensor,
    ids: Tensor,
    comparison: Comparison,
    grad_logp: Tensor,
    grad_entropy: Tensor,
    grad_value: Tensor,
    scale: float,
    divergence: Divergence,
) -> None:
    """Turn the student's logits, in place, into their gradient: that of :func:`gradient_` and the divergence's."""
    own, held = _own(ids, 0, student.shape[1])
    g, h = _slopes(grad_logp, grad_entropy, scale)
    for rows in _tiles(student):
        log_s = _log_probs_(_copy(student[rows]), comparison.lse[rows], scale)
        log_t = _log_probs_(_copy(teacher[rows]), comparison.teacher_lse[rows], scale)
        grad = contrast.gradient(log_s, log_t, divergence).mul_(scale * grad_value[rows, None])
        among = (own[rows], held[rows])
        entropy = comparison.entropy[rows, None]
        grad.add_(_policy_gradient(log_s, among, entropy, g[rows], None if h is None else h[rows]))
        student[rows] = grad


def _copy(logits: Tensor) -> Tensor:
    return logits.to(torch.float32, copy=True)
