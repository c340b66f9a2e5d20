"""Whether a text follows the instructions that a row gives."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, create_model

from m2rl_core.errors import DataError, nearest
from m2rl_domain_if import ifbench, ifevalg
from m2rl_domain_if.folding import visible
from m2rl_domain_if.registry import Instruction

__all__ = ["INSTRUCTIONS", "Given", "Mode", "follows", "instructions", "refuse_contradictions", "variants"]

INSTRUCTIONS: Mapping[str, Instruction] = {**ifevalg.TABLE, **ifbench.TABLE}
"""Instruction id → how it is checked."""

Mode = Literal["strict", "loose"]


@dataclass(frozen=True, slots=True)
class Given:
    """One instruction of a prompt."""

    id: str
    arguments: Mapping[str, Any]


def instructions(place: str, row: Mapping[str, Any]) -> list[Given]:
    """The instructions of a row, with their arguments; those that an instruction does not take are left out.

    Raises:
        DataError: none is given, an id is unknown, or arguments are missing or of another type; it names the row.
    """
    ids, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not ids or not all(isinstance(each, str) for each in ids):
        raise DataError(f"{place} gives no instruction", found=f"instruction_id_list {ids!r}")
    if not isinstance(arguments, list) or len(arguments) != len(ids):
        found = len(arguments) if isinstance(arguments, list) else repr(arguments)
        raise DataError(f"{place} needs one element of kwargs for each of its {len(ids)} instructions", found=found)
    return [_given(place, name, given) for name, given in zip(ids, arguments, strict=True)]


def _given(place: str, name: str, arguments: Any) -> Given:
    if name not in INSTRUCTIONS:
        raise DataError(f"{place} gives an unknown instruction '{name}'.{nearest(name, INSTRUCTIONS)}")
    if not isinstance(arguments, Mapping | None):
        raise DataError(f"{place}: the arguments of '{name}' are no object", found=repr(arguments)[:80])
    wanted = INSTRUCTIONS[name].arguments
    there = {key: value for key, value in (arguments or {}).items() if value is not None and key in wanted}
    try:
        checked = _model(name)(**there)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{place}: argument '{first['loc'][0]}' of '{name}' does not fit: {first['msg']}",
            found=repr(arguments)[:80],
        ) from error
    return Given(name, checked.model_dump())


@functools.cache
def _model(name: str) -> type[BaseModel]:
    """The arguments of an instruction as a pydantic model."""
    fields: dict[str, Any] = {key: (kind, ...) for key, kind in INSTRUCTIONS[name].arguments.items()}
    return create_model("Arguments", **fields)


def follows(given: Given, text: str, mode: Mode) -> bool:
    """Whether ``text`` follows an instruction; ``loose``: any of its eight variants does.

    A check that runs out of time or of stack was not convinced.

    Raises:
        DataError: arguments that contradict each other.
    """
    check = INSTRUCTIONS[given.id].check
    try:
        return any(check(each, **given.arguments) for each in variants(text, mode))
    except (TimeoutError, RecursionError):
        return False


def variants(text: str, mode: Mode) -> Iterator[str]:
    """``text`` stripped; where ``loose``, also without its first, last or both lines, each with and without asterisks.

    Those in which nothing can be seen are left out.
    """
    lines = text.strip().split("\n")
    cuts = [lines, lines[1:], lines[:-1], lines[1:-1]] if mode == "loose" else [lines]
    for cut in cuts:
        whole = "\n".join(cut).strip()
        both = (whole, whole.replace("*", "").strip()) if mode == "loose" else (whole,)
        yield from (each for each in dict.fromkeys(both) if visible(each).strip())


def refuse_contradictions(place: str, given: Iterable[Given]) -> None:
    """Find arguments that fit one by one and contradict each other, by a check of any text.

    Raises:
        DataError: naming the row.
    """
    for each in given:
        try:
            follows(each, "x", "strict")
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
