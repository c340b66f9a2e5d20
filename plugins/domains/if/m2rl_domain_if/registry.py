"""How an instruction is checked: a plain function of the response and of the row's arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Instruction", "Table"]

Check = Callable[..., bool]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One kind of instruction that a prompt may give."""

    check: Check
    """``check(text, **arguments)``: whether ``text``, stripped and not empty, follows it."""
    arguments: Mapping[str, Any]
    """Name → type (as pydantic understands it) of every argument that a row must give."""


class Table(dict[str, Instruction]):
    """Instruction id → instruction. Filled by decorating checks::

    @TABLE.add("keywords:frequency", keyword=str, frequency=int, relation=Relation)
    def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool: ...
    """

    def add(self, id: str, **arguments: Any) -> Callable[[Check], Check]:  # noqa: A002
        def enter(check: Check) -> Check:
            if id in self:
                raise ValueError(f"instruction '{id}' is registered twice")
            self[id] = Instruction(check, arguments)
            return check

        return enter
