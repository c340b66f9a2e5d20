"""Unit tests as rows hold them: ``{inputs, outputs, fn_name?}``, and more in ``packed``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from m2rl_core.errors import DataError
from m2rl_domain_coding.packed import unpacked

__all__ = ["UnitTest", "subset", "unit_tests"]

_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?")
_SHAPE = "{inputs: [text, ...], outputs: [text, ...], fn_name?: name}, as many outputs as inputs"


@dataclass(frozen=True, slots=True)
class UnitTest:
    """What a program is given, and what must come of it."""

    stdin: str
    call: tuple[str, tuple[Any, ...]] | None
    """Function and arguments, where the program is not fed by standard input."""
    expected: Any
    """Text to be printed, or the value to be returned."""


def unit_tests(place: str, given: object) -> list[UnitTest]:
    """The tests that ``given`` holds, all of them sound.

    Args:
        place: whose they are, for messages.
        given: ``inputs`` and ``outputs``, lists of text. With ``fn_name``, each line of an input is one argument as
            JSON, and the output is what is returned, as JSON. ``packed`` holds further tests (:mod:`.packed`).

    Raises:
        DataError: there are no tests, not as many outputs as inputs, something that is no JSON; or all outputs are
            blank, so that a program that does nothing would be right.
    """
    if not isinstance(given, Mapping):
        raise DataError(f"{place} has no unit tests", found=repr(given)[:80], allowed=_SHAPE)
    inputs, outputs = _texts(place, given, "inputs"), _texts(place, given, "outputs")
    more = unpacked(place, given.get("packed"))
    inputs += [stdin for stdin, _ in more.pairs]
    outputs += [stdout for _, stdout in more.pairs]
    if len(inputs) != len(outputs):
        raise DataError(
            f"{place} has unit tests that do not match",
            found=f"{len(inputs)} inputs, {len(outputs)} outputs",
            allowed=_SHAPE,
        )
    if not any(output.strip() for output in outputs):
        found = "only blank outputs" if outputs else "none"
        raise DataError(f"{place} has no unit tests", found=found, allowed=_SHAPE)
    name = _name(place, given.get("fn_name") or more.name)
    pairs = enumerate(zip(inputs, outputs, strict=True), 1)
    return [_test(f"{place}, test {number}", name, *pair) for number, pair in pairs]


def subset(tests: Sequence[UnitTest], count: int | None, seed: int) -> list[UnitTest]:
    """``count`` of the tests in their order, the same for the same seed; all of them for ``None``."""
    if count is None or count >= len(tests):
        return list(tests)
    return [tests[index] for index in sorted(Random(seed).sample(range(len(tests)), count))]


def _texts(place: str, given: Mapping[str, Any], key: str) -> list[str]:
    listed = given.get(key)
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise DataError(f"{place} has unit tests without '{key}'", found=repr(listed)[:80], allowed=_SHAPE)
    return list(listed)


def _name(place: str, given: object) -> str | None:
    if given is None or given == "":
        return None
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise DataError(f"{place} has a fn_name that is no name", found=repr(given)[:80])
    return given


def _test(place: str, name: str | None, given: str, expected: str) -> UnitTest:
    if name is None:
        return UnitTest(given, None, expected)
    lines = given.strip("\r\n").split("\n") if given.strip() else []
    arguments = tuple(_json(place, "argument", line) for line in lines)
    return UnitTest("", (name, arguments), _json(place, "output", expected))


def _json(place: str, what: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} has an {what} that is no JSON", found=repr(text)[:80]) from error
