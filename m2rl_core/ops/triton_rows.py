"""Row functions over logits as Triton kernels: what :mod:`m2rl_core.ops.rows` does in torch, in the fewest bytes.

Traffic per logit of one side, 2 bytes each in bfloat16 and 4 in float32; the statistics, some 20 bytes a row, are lost
beside them. At the memory's copy bandwidth this is the floor of each function:

=====================  =======================  ==============  ======================================
function               reads                    writes          bytes per bfloat16 logit of the student
=====================  =======================  ==============  ======================================
``summarise``          logits once              —               2
``gradient_``          logits once              logits once     4
``compare``, a KL      both sides once          —               4
``compare``, JS        both sides twice         —               8 (second pass: the mixture needs both log-normalisers)
``compare_gradient_``  both sides once          student once    6
the same, JS           both sides twice         student once    10 (first pass: KL(student ‖ mixture))
=====================  =======================  ==============  ======================================

Logits are bfloat16 or float32 with neighbouring columns neighbours in memory; rows may lie apart (a slice of a larger
buffer). Loads are vectors where the first logit and the rows' distance are multiples of 16 bytes and 16 divides V'; in
every other case the results are the same and the loads slower. Statistics and sums are float32. Temperature enters as
``scale``. A logit of NaN or +inf makes its row's statistics NaN, one of −inf (which no product of finite numbers within
range gives) the entropy and the divergence.

No atomics, fixed order, tiles that depend on V' and the dtype alone: a row's result is bitwise the same whatever rows
lie beside it. Each V' is compiled once per dtype; nothing is tuned at run time: results do not depend on a timing.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from m2rl_core.ops import rows, triton_kernels
from m2rl_core.ops.rows import Comparison, Partial
from m2rl_core.types import Divergence

LANES = 1024
"""Lanes of a program that reads one side: 16 KiB a tile, four vector loads in flight per thread at 40 registers."""
LANES_OF_TWO = 512
"""With two sides: the same bytes in flight; 1024 lanes would halve the occupancy or spill."""
WARPS = 8


def summarise(logits: Tensor, ids: Tensor, offset: int, scale: float) -> Partial:
    """Statistics of a slice of the vocabulary, float32 [C] each.

    Args:
        logits: [C, V'], of tokens ``offset`` to ``offset + V' − 1``.
        ids: int64 [C], each row's own token, inside of the slice or not.
        offset: the slice's first token.
        scale: one over the temperature.
    """
    out = logits.new_empty(4, len(logits), dtype=torch.float32)
    _launch(triton_kernels.summarise, LANES, logits, ids.contiguous(), out, logits.stride(0), offset, scale)
    return Partial(*out)


def gradient_(
    logits: Tensor, ids: Tensor, offset: int, lse: Tensor, entropy: Tensor, grad_logp: Tensor, grad_entropy: Tensor,
    scale: float,
) -> None:  # fmt: skip
    """In place: logits become scale · [g · (1_y − p) − h · p · (log p + entropy)], p = exp(scale · logits − lse).

    Args:
        lse: float32 [C], log-normaliser of the whole vocabulary, and likewise ``entropy``.
        grad_logp: float32 [C], g; ``grad_entropy``: h. The other arguments are those of :func:`summarise`.
    """
    statistics = [x.contiguous() for x in (ids, lse, entropy, grad_logp, grad_entropy)]
    _launch(triton_kernels.gradient, LANES, logits, *statistics, logits.stride(0), offset, scale)


def compare(student: Tensor, teacher: Tensor, ids: Tensor, scale: float, divergence: Divergence) -> Comparison:
    """Statistics of a student's whole rows [C, V] beside a teacher's, float32 [C] each; the dtypes may differ.

    ``top_k`` needs the teacher's likeliest tokens, a sort: it is left to torch, on either device.

    Raises:
        ValueError: shapes differ, or ``beta`` of a ``js`` is not between 0 and 1, where the divergence is 0 for all.
    """
    if divergence.top_k:
        return rows.compare(student, teacher, ids, scale, divergence)
    _check(student, teacher, divergence)
    out = student.new_empty(5, len(student), dtype=torch.float32)
    strides = student.stride(0), teacher.stride(0)
    arguments = (teacher, ids.contiguous(), out, *strides, scale, divergence.beta)
    _launch(triton_kernels.compare, LANES_OF_TWO, student, *arguments, KIND=divergence.kind)
    return Comparison(*out)


def compare_gradient_(
    student: Tensor, teacher: Tensor, ids: Tensor, comparison: Comparison, grad_logp: Tensor, grad_entropy: Tensor,
    grad_value: Tensor, scale: float, divergence: Divergence,
) -> None:  # fmt: skip
    """In place: the student's logits become the gradient of g · logp + h · entropy + v · divergence.

    Args:
        comparison: what :func:`compare` said of the same logits.
        grad_logp: float32 [C], g; ``grad_entropy``: h; ``grad_value``: v.

    Raises:
        ValueError: as :func:`compare`.
    """
    if divergence.top_k:
        gradients = (grad_logp, grad_entropy, grad_value)
        return rows.compare_gradient_(student, teacher, ids, comparison, *gradients, scale, divergence)
    _check(student, teacher, divergence)
    lse, _, entropy, teacher_lse, value = comparison
    given = (ids, lse, entropy, teacher_lse, value, grad_logp, grad_entropy, grad_value)
    arguments = (*(x.contiguous() for x in given), student.stride(0), teacher.stride(0), scale, divergence.beta)
    _launch(triton_kernels.compare_gradient, LANES_OF_TWO, student, teacher, *arguments, KIND=divergence.kind)
    return None


def _check(student: Tensor, teacher: Tensor, divergence: Divergence) -> None:
    _check_layout(teacher)
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher differ: {tuple(student.shape)} and {tuple(teacher.shape)}")
    if divergence.kind == "js" and not 0 < divergence.beta < 1:
        raise ValueError(f"beta = {divergence.beta}: a js mixture takes 0 < beta < 1; its ends are always 0")


def _check_layout(logits: Tensor) -> None:
    if logits.dtype not in {torch.bfloat16, torch.float32}:
        raise ValueError(f"logits of {logits.dtype}, allowed: bfloat16 and float32")
    if logits.stride(1) != 1 and logits.shape[1] > 1:
        raise ValueError(f"the columns of the logits lie apart: strides {logits.stride()}, allowed: (any, 1)")


def _launch(kernel: Any, lanes: int, logits: Tensor, *arguments: Any, **constants: Any) -> None:
    """One program per row; nothing where there are no rows."""
    _check_layout(logits)
    vocab, vector = logits.shape[1], 16 // logits.element_size()
    constants |= {"V": vocab, "LANES": min(lanes, triton.next_power_of_2(triton.cdiv(vocab, vector)))}
    # Fusing multiplication and addition is asked for by name because Triton's default is about to change.
    constants |= {"VECTOR": vector, "num_warps": WARPS, "enable_fp_fusion": True}
    if len(logits):
        with torch.cuda.device(logits.get_device()):  # of a tensor on the CPU: −1, which changes nothing
            kernel[(len(logits),)](logits, *arguments, **constants)
