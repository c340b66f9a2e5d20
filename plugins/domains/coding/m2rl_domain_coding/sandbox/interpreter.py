"""The bare interpreter that sandboxes start: no site-packages, no environment, sets in the same order every time."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["ENVIRONMENT", "GUEST", "command"]

GUEST = Path(__file__).parent
"""Folder of the package ``guest``."""
ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""All that it gets."""


def command(call: str, folder: str = str(GUEST)) -> list[str]:
    """Arguments that run ``guest.MODULE.FUNCTION(...)``; no module of the host can come before one of the library."""
    module = call.partition(".")[0]
    code = f"import sys; sys.path.insert(0, {folder!r}); from guest import {module}; del sys.path[0]; {call}"
    executable: str = getattr(sys, "_base_executable", None) or sys.executable
    return [executable, "-P", "-s", "-S", "-X", "utf8", "-c", code]
