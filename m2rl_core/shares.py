"""Whole numbers of things in given proportions."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["counts"]


def counts(domains: list[str] | Mapping[str, float], total: int) -> dict[str, int]:
    """Whole conversations per domain that add up to ``total``; the first domains take the remainder."""
    weights = dict(domains) if isinstance(domains, Mapping) else dict.fromkeys(domains, 1.0)
    exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    whole = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: whole[n] - exact[n])[: total - sum(whole.values())]:
        whole[name] += 1
    return whole
