"""The categories of BFCL v3 and what each counts in the overall score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = [
    "CATEGORIES",
    "FREE",
    "JUDGED",
    "LIVE",
    "MULTI_TURN",
    "NON_LIVE",
    "SUITE",
    "UNWINNABLE",
    "Language",
    "language",
    "weights",
]

SUITE = "bfcl-v3"
Language = Literal["python", "java", "javascript"]

SIMPLE = ("simple", "java", "javascript")
NON_LIVE = (*SIMPLE, "multiple", "parallel", "parallel_multiple", "irrelevance")
LIVE = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple", "live_irrelevance", "live_relevance")
MULTI_TURN = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
CATEGORIES = (*NON_LIVE, *LIVE, *MULTI_TURN)
FREE: Mapping[str, bool] = {"irrelevance": False, "live_irrelevance": False, "live_relevance": True}
"""Categories without gold calls: whether making a call is right."""
JUDGED = tuple(category for category in (*NON_LIVE, *LIVE) if category not in FREE)
"""Categories of one turn whose calls are compared with gold calls."""
_BROKEN = (
    "live_simple_106-63-0",  # an argument without a value that is accepted
    "live_simple_112-68-0",
    "live_multiple_862-181-3",  # an argument that the function does not have
    "live_multiple_964-207-0",  # nothing for an argument that the function requires
    "multi_turn_base_154",  # gold for more turns than the user has; mended in v4
)
UNWINNABLE = frozenset(f"{SUITE}/{row}" for row in _BROKEN)
"""Rows of upstream's data that no answer fits, so that upstream fails every model. Elsewhere such gold is an error."""


def language(category: str) -> Language:
    """The language in which a category's functions and their arguments are written."""
    return "java" if category == "java" else "javascript" if category == "javascript" else "python"


def weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Category → weight of each of its prompts, such that a weighted mean is v3's overall score.

    Upstream's ``eval_runner_helper.py`` at its last v3 commit (cd9429c, August 2025): the overall score is the plain
    mean of three. Non-live is the plain mean of five, the first of which is the plain mean of the three simple ones.
    Live is the mean over all its prompts. Multi-turn is the plain mean of its four categories.

    Args:
        counts: prompts of each of :data:`CATEGORIES`, all positive.
    """
    third = 1 / 3
    share = dict.fromkeys(NON_LIVE, third / 5) | dict.fromkeys(SIMPLE, third / 15)
    share |= dict.fromkeys(MULTI_TURN, third / len(MULTI_TURN))
    live = sum(counts[category] for category in LIVE)
    return {category: share[category] / counts[category] if category in share else third / live for category in counts}
