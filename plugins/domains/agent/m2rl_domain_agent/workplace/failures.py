"""How a tool says that it has done nothing."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ToolError", "choice", "needed"]


class ToolError(ValueError):
    """The call failed and changed nothing; the text goes to the model."""


def needed(**given: str | None) -> None:
    """Refuse a call without one of these arguments, or with an empty one.

    Raises:
        ToolError: it names them.
    """
    if missing := [name for name, value in given.items() if not value]:
        raise ToolError(f"Missing arguments: {', '.join(missing)}.")


def choice(value: str, allowed: Iterable[str], what: str) -> None:
    """Refuse a value that is none of ``allowed``.

    Raises:
        ToolError: it lists them.
    """
    listed = tuple(allowed)
    if value not in listed:
        raise ToolError(f"Invalid {what}. Choose from: {', '.join(map(repr, listed))}.")
