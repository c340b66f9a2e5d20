"""Word lists as they are written in this plugin."""

from __future__ import annotations

__all__ = ["listed"]


def listed(*groups: str) -> frozenset[str]:
    """The words of ``groups``, where they stand between spaces."""
    return frozenset(word for group in groups for word in group.split())
