r"""Reading a final answer: what it claims, its plain form, and the exact number it is.

Domains that compare an answer with a gold share this package. It executes nothing and never calls ``eval``; every
function is bounded, and an answer that is longer, deeper or larger than the limits is refused, not computed.
"""

from __future__ import annotations

from m2rl_core.answers.arithmetic import rational
from m2rl_core.answers.claims import Claims, UnreadableError, claims, otherwise
from m2rl_core.answers.latex import compact, enclosed, fold, pieces, plain, unwrap

__all__ = [
    "Claims",
    "UnreadableError",
    "claims",
    "compact",
    "enclosed",
    "fold",
    "otherwise",
    "pieces",
    "plain",
    "rational",
    "unwrap",
]
