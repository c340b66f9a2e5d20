"""Texts too short to count where an instruction leaves next to nothing to check."""

from __future__ import annotations

from m2rl_domain_if.folding import visible

__all__ = ["is_brief"]

ENOUGH = 10
"""Words. From here on a text is an answer; a shorter one may have been cut until nothing was left to check."""


def is_brief(text: str) -> bool:
    return len(visible(text).split()) < ENOUGH
