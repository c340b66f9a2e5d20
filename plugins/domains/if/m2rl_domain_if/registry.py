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

    def add(self, name: str, **arguments: Any) -> Callable[[Check], Check]:
        def enter(check: Check) -> Check:
            if name in self:
                raise ValueError(f"instruction '{name}' is registered twice")
            self[name] = Instruction(check, arguments)
            return check

        return enter
