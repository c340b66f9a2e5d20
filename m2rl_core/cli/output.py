"""``--json``: standard output is then one JSON document and nothing else, also where the command fails.

What a command says beside it (progress, warnings, the message of a failure) goes to standard error, as always.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from m2rl_core.errors import M2rlError

__all__ = ["AsJson", "print_json", "print_json_error"]

_KEY = "m2rl.json"


def _noted(context: typer.Context, wanted: bool) -> bool:
    context.meta[_KEY] = wanted  # shared with the group, which sees how the command ends
    return wanted


AsJson = Annotated[
    bool, typer.Option("--json", callback=_noted, help="One JSON document on standard output, for programs.")
]


def print_json(document: Any) -> None:
    """Print ``document``, plain data; paths and the like become text, and numbers that JSON does not know ``null``."""
    json.dump(_finite(document), sys.stdout, indent=2, allow_nan=False, default=str)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _finite(each) for key, each in value.items()}
        case list() | tuple():
            return list(map(_finite, value))
    return value


def print_json_error(context: typer.Context, error: M2rlError) -> None:
    """``{"error": {"kind": …, "message": …}}`` where ``--json`` was asked for, and nothing elsewhere."""
    if context.meta.get(_KEY):
        print_json({"error": {"kind": error.kind, "message": str(error)}})
