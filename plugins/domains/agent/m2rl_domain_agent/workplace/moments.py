"""Dates and times as the tools take them, and the workplace's fixed present."""

from __future__ import annotations

import re
from datetime import datetime

from m2rl_domain_agent.workplace.failures import ToolError

__all__ = ["NOW", "moment"]

NOW = "2023-11-30 23:59:00"
"""What the prompts of the blend say the time is."""
_MOMENT = re.compile(
    r"\s*(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d{1,9})?)?)?\s*", re.ASCII
)


def moment(text: str, what: str) -> datetime:
    """``YYYY-MM-DD``, with ``HH:MM`` or ``HH:MM:SS`` or without; leading zeros may be missing.

    Raises:
        ToolError: no such text; it names ``what``.
    """
    found = _MOMENT.fullmatch(text)
    try:
        return datetime(*(int(part or 0) for part in found.groups()))  # type: ignore[union-attr,arg-type]
    except (AttributeError, ValueError):
        raise ToolError(f"Invalid {what}. Expected YYYY-MM-DD HH:MM:SS.") from None
