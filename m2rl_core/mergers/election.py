"""Which sign a merged weight shall have, where task vectors pull it both ways: the one rule of all mergers that elect.

It is the sign of the sum of the (weighted) task vectors. Where that sum is exactly zero, no sign has more behind it.
SCE and DELLA then say plus, as mergekit does for all methods. TIES takes the sign that most weights of the model have,
and none where that is a draw: its definition asks for a count over the whole model, which the others do not read for.
Two bfloat16 experts cancel often enough for this to be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["elected"]


def elected(total: Tensor, zero: int = 1) -> Tensor:
    """Signs of sums, 1.0 or -1.0, or 0.0 where nothing is elected; float32, of the shape of ``total``.

    Args:
        total: sums of task vectors.
        zero: elects for sums of exactly zero, negative ones included: plus, minus, or nothing where it is 0.
    """
    side = total.sign()
    return side if zero == 0 else side.add_(0.5 if zero > 0 else -0.5).sign_()
