"""When a weight w of a model counts as changed from w₀ of the base; and how far apart the two are.

``eta``
    \\|w − w₀\\| > η·max(\\|w\\|, \\|w₀\\|), the paper's section 3.3. Neighbouring bfloat16 numbers lie at least 2⁻⁸
    apart in this measure, so with the paper's η = 1e-3 it says the same as ``exact`` on bfloat16 checkpoints.
``exact``
    w ≠ w₀.
``ulp``
    w is neither w₀ nor one of its two neighbours in the type in which the checkpoints are stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from m2rl_analyzer_weight_shift.tally import BINS, Counts, Flags, Floats

Integers = npt.NDArray[np.signedinteger[Any]]

Halves = npt.NDArray[np.int16]

_SIZE = 0x7FFF
"""The bits of a number without its sign."""
_INTEGERS = {2: torch.int16, 4: torch.int32}
"""Bytes of a float type → integers of its width."""


def eta_is_exact(eta: float, dtype: torch.dtype) -> bool:
    """Whether numbers of ``dtype`` that differ at all differ by more than ``eta``, relative to the larger."""
    return eta < torch.finfo(dtype).eps / 2


def eta_mask(size_EN: Tensor, larger_EN: Tensor, eta: float, out: Tensor) -> None:
    """The ``eta`` rule as 0 and 1, from \\|w − w₀\\| and max(\\|w\\|, \\|w₀\\|)."""
    torch.mul(larger_EN, eta, out=out)
    torch.gt(size_EN, out, out=out)


def neighbours(base_N: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The numbers of ``dtype`` next below and next above each of ``base_N``, in float32."""
    bits: Integers = base_N.to(dtype).view(_INTEGERS[dtype.itemsize]).numpy()
    up = (bits >> (8 * dtype.itemsize - 1)) * 2 + 1  # the bits of negative numbers count away from zero
    below, above = bits - up, bits + up
    limits = np.iinfo(bits.dtype)
    zero = (bits & limits.max) == 0
    if zero.any():
        below[zero], above[zero] = limits.min + 1, 1
    return torch.from_numpy(below).view(dtype).float(), torch.from_numpy(above).view(dtype).float()


def mark_beyond_a_step(models_EN: Tensor, base_N: Tensor, dtype: torch.dtype, out_EN: Flags, room_EN: Flags) -> None:
    """The ``ulp`` rule, of float32 values in steps of ``dtype``; ``room_EN`` is overwritten too."""
    below_N, above_N = (each.numpy() for each in neighbours(base_N, dtype))
    np.greater(models_EN.numpy(), above_N, out=out_EN)
    np.less(models_EN.numpy(), below_N, out=room_EN)
    np.logical_or(out_EN, room_EN, out=out_EN)


def mark_by_bits(weights_SN: Tensor, exact_EN: Flags, ulp_EN: Flags, room: Halves) -> None:
    """The ``exact`` and the ``ulp`` rule of finite 16-bit floats, by integer arithmetic on their bits.

    Bits of one sign count steps. Of two signs they differ by at least 128 from each other and from the next wrap, so
    that both rules say "changed", as is true of all but the zeros and the smallest numbers beside them.

    Args:
        weights_SN: [1 + E, N], the base first.
        exact_EN, ulp_EN: results, [E, at least N]; what is beyond N becomes false.
        room: at least E·N.
    """
    bits_SN: Halves = weights_SN.view(torch.int16).numpy()
    models, count = bits_SN.shape[0] - 1, bits_SN.shape[1]
    steps_EN = room[: models * count].reshape(models, count)
    np.subtract(bits_SN[1:], bits_SN[0], out=steps_EN)
    near = np.flatnonzero((bits_SN[0] & _SIZE) <= 1)
    if near.size:
        steps_EN[:, near] = _across_zero(bits_SN[:, near])
    np.not_equal(steps_EN, 0, out=exact_EN[:, :count])
    steps_EN += 1
    np.greater(steps_EN.view(np.uint16), 2, out=ulp_EN[:, :count])
    exact_EN[:, count:] = ulp_EN[:, count:] = False


def _across_zero(bits_SN: Halves) -> Halves:
    """Steps, up to 2, from bases on or next to zero: the other sign is next to them, and −0 is 0."""
    signed_SN = np.where(bits_SN < 0, -(bits_SN & _SIZE), bits_SN).astype(np.int32)
    steps_EN: Halves = (signed_SN[1:] - signed_SN[0]).clip(-2, 2).astype(np.int16)
    return steps_EN


def pairs(flags_REN: Flags) -> Counts:
    """How often two models' flags are both set, [R, E, E]; N is a multiple of 64."""
    words = np.packbits(flags_REN, axis=-1).view(np.uint64)
    both: Counts = np.bitwise_count(words[:, :, None] & words[:, None]).sum(-1, dtype=np.int64)
    return both


def histogram(changes_EN: Tensor) -> Floats:
    """How often each relative change occurs, [E, BINS]: bin b holds those whose float32 bits begin with b."""
    keys_EN = changes_EN.view(torch.int32) >> 16
    return np.stack([torch.bincount(keys_N, minlength=BINS).double().numpy() for keys_N in keys_EN])


def eta_for(share: float, histogram_B: Floats) -> float | None:
    """The η above which a share of the weights changes, within the 0.8% that a bin is wide.

    Returns:
        ``None`` where fewer weights than that have changed at all.
    """
    beyond_B = np.cumsum(histogram_B[::-1])[::-1]  # weights in a bin or above it
    wanted = share * beyond_B[0]
    at = int(np.searchsorted(-beyond_B, -wanted, side="right")) - 1  # the last bin with that many
    if at == 0:
        return None
    low, high = _edge(at), _edge(at + 1)
    return low + (high - low) * float((beyond_B[at] - wanted) / histogram_B[at])


def _edge(index: int) -> float:
    """Where a bin begins."""
    return float(np.array(index << 16, np.int32).view(np.float32))
