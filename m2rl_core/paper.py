"""What the paper states about its own experiment (arXiv 2602.12566v3): data, not code.

A :class:`Claim` is a place in a resolved study and the value that the paper states there; see :mod:`m2rl_core.drift`.
Components are named as a study names them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

__all__ = ["CLAIMS", "GPU_HOURS", "TABLE_1", "Blended", "Claim", "Role"]

Role = Literal["study", "sft", "expert", "mixed", "distilled", "merge", "eval", "analyze", "domain"]
"""Whose place it is: the study itself, or its stages of one kind. Experts are ``rl`` stages of one domain, the mixed
run has several and no teacher, the distilled has teachers."""


class Blended(NamedTuple):
    """A row of Table 1."""

    samples: int
    percent: float
    data: str
    """Name of the data set under nvidia/."""
    method: str


TABLE_1 = {
    "math-proofs": Blended(335_122, 2.37, "Nemotron-Math-Proofs-v1", "random sampling"),
    "math": Blended(2_950_525, 20.89, "Nemotron-Math-v2", "random sampling"),
    "science": Blended(2_263_340, 16.04, "Nemotron-Science-v1", "repeat 10 times"),
    "code": Blended(3_927_984, 27.81, "Nemotron-Competitive-Programming-v1", "use all"),
    "chat": Blended(4_309_780, 30.52, "Nemotron-Instruction-Following-Chat-v1", "repeat 10 times"),
    "agent": Blended(335_122, 2.37, "Nemotron-Agentic-v1", "use all"),
}
"""Name of a source in ``stages.sft.blend`` → its row. They add up to 14,121,873."""

GPU_HOURS = {
    "math": 4782.3,
    "coding": 6404.4,
    "science": 1140.8,
    "if": 1180.0,
    "agent": 2271.0,
    "mixed": 10050.6,
    "distilled": 967.9,
}
"""Table 2: an expert's domain, or the role of a stage → GPU hours, of GPUs that the paper does not name."""
