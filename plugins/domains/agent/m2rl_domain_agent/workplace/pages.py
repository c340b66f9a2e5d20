"""Long lists of rows, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from m2rl_domain_agent.workplace.failures import ToolError
from m2rl_domain_agent.workplace.tables import Row

__all__ = ["PAGE", "found_in", "paged"]

PAGE = 5
"""Rows of a page where the call does not say."""


def paged(name: str, rows: Sequence[Row], page: int, page_size: int) -> dict[str, Any]:
    """One page of ``rows``; a page beyond the last is the last, one before the first the first.

    Raises:
        ToolError: no row, or no size.
    """
    if not rows:
        raise ToolError(f"No {name} found.")
    if page_size < 1:
        raise ToolError("Invalid page_size. It must be at least 1.")
    pages = -(-len(rows) // page_size)
    page = max(1, min(page, pages))
    shown = rows[(page - 1) * page_size : page * page_size]
    numbers = {f"total_{name}": len(rows), "page": page, "page_size": page_size, "total_pages": pages}
    return {name: [dict(row) for row in shown], "pagination": numbers}


def found_in(part: str, value: str | None) -> bool:
    """Whether ``value`` contains ``part``, whatever the case. Upstream reads ``part`` as a regular expression."""
    return value is not None and part.lower() in value.lower()
