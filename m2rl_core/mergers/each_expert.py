"""Settings of mergers that all experts share, or that each has its own of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Discriminator, Tag

__all__ = ["Each", "each_or_all", "numbers_E"]

T = TypeVar("T")


def _form(value: object) -> str:
    return "each" if isinstance(value, list | tuple) else "one"


Each = Annotated[Annotated[T, Tag("one")] | Annotated[list[T], Tag("each")], Discriminator(_form)]
"""Type of a setting: a number for all experts, or a list with one for each, in their order."""


def numbers_E(setting: float | Sequence[float], experts: int, names: str) -> Sequence[float]:
    """One number for each of so many experts.

    Args:
        names: of the numbers, in the plural, for the message.

    Raises:
        ValueError: the setting lists another number of them.
    """
    if isinstance(setting, int | float):
        return [setting] * experts
    if len(setting) != experts:
        raise ValueError(f"{len(setting)} {names} for {experts} experts")
    return setting


def each_or_all(setting: float | Sequence[float]) -> float | tuple[float, ...]:
    """The setting as something that can be hashed."""
    return setting if isinstance(setting, int | float) else tuple(setting)
