"""The API objects of a multi-turn conversation: classes of the installed ``bfcl-eval``, called by whitelisted name.

Calls run in this process, and in the core's while a conversation is sampled, so what a model may ask for is bounded in
size and work; every bound holds for gold calls too, which stay far below. Global state of the classes is kept apart:
the precision that one call sets, and defaults that upstream's objects share and change.
"""

from __future__ import annotations

import copy
import decimal
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from m2rl_core.errors import DataError
from m2rl_domain_agent.bfcl.files import DOCUMENTS, INSTALL, package_folder, version

__all__ = ["World", "check_package"]

_MODULES = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
_STATELESS = ("MathAPI",)
LONGEST = 20_000
"""Characters of a call's arguments as JSON. The longest gold call has 6,839."""
LARGEST = 10**15
"""Magnitude of an integer argument."""
_WORK_GROWS = {"precision": 1000, "exponent": 1000, "decimal_places": 1000}
"""Magnitude of arguments that the work grows with, whole or not. Gold calls ask for a precision of 10."""
WORK = 200_000
"""Calls of functions that one call may make: a folder that is copied into itself takes for ever to search."""


class World:
    """The objects that one side, the model or the gold, changes.

    Args:
        classes: names of upstream's classes.
        config: class → its initial state.
        long_context: whether the classes add upstream's padding.

    Raises:
        DataError: ``bfcl-eval`` is not installed, or the state is none of its classes'.
    """

    def __init__(self, classes: Sequence[str], config: Mapping[str, Any], *, long_context: bool) -> None:
        self._objects = {name: _object(name, config.get(name, {}), long_context) for name in classes}
        self._functions: dict[str, Callable[..., Any]] = {}
        for each in self._objects.values():
            self._functions |= {name: getattr(each, name) for name in _public(type(each))}

    def call(self, name: str, given: Sequence[Any], named: Mapping[str, Any]) -> str:
        """What a function answers, as text; an error is an answer too."""
        try:
            if name not in self._functions:
                raise ValueError(f"there is no function '{name[:80]}'")
            function = self._functions[name]
            _check(dict(zip(inspect.signature(function).parameters, given, strict=False)) | dict(named))
            with _apart(), _bounded():
                return _text(function(*given, **named))
        except Exception as error:
            return f"Error during execution: {error}"

    def difference(self, other: World) -> str:
        """The class whose public attributes differ; nothing where all are equal."""
        try:
            return next((name for name, each in self._objects.items() if not _equal(each, other._objects[name])), "")
        except RecursionError:  # a folder that is within itself; the gold has none
            return "folder tree"


def check_package(wanted: str) -> None:
    """Refuse rows that the installed package's classes are not made for.

    Args:
        wanted: version of the rows, ``BFCL_v3`` or ``BFCL_v4``.

    Raises:
        DataError: ``bfcl-eval`` is missing, or of the other version.
    """
    found = version(package_folder())
    if found != wanted:
        raise DataError(
            f"the multi-turn rows are {wanted}, the installed bfcl-eval is not, and its classes have changed",
            found=found,
            then=f"{INSTALL}, or set bfcl_v3 to 'bfcl-eval' for the rows of the installed release",
        )


def _object(name: str, state: Mapping[str, Any], long_context: bool) -> Any:
    if name not in DOCUMENTS:
        raise DataError(f"BFCL has no class '{name}'", allowed=DOCUMENTS)
    try:
        made = getattr(importlib.import_module(f"{_MODULES}.{DOCUMENTS[name]}"), name)()
    except ImportError as error:
        raise DataError(f"BFCL's multi-turn rows need the classes of bfcl-eval: {error}", then=INSTALL) from error
    if name not in _STATELESS:
        made._load_scenario(copy.deepcopy(state), long_context=long_context)
    return copy.deepcopy(made)  # some of its state is the module's own


def _public(kind: type) -> Iterator[str]:
    """Names of the methods that the class itself defines for callers; upstream documents exactly these."""
    return (name for name, value in vars(kind).items() if not name.startswith("_") and callable(value))


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are too much work.

    Raises:
        ValueError: it names what is too large.
    """
    if len(json.dumps(arguments)) > LONGEST:
        raise ValueError(f"arguments of more than {LONGEST} characters")
    for name, value in arguments.items():
        most = _WORK_GROWS.get(name, LARGEST)
        if any(abs(number) > most for number in _numbers(value, floats=name in _WORK_GROWS)):
            raise ValueError(f"'{name[:80]}' is beyond {most}")


def _numbers(value: Any, *, floats: bool) -> Iterator[int | float]:
    """The numbers in an argument: integers, whose arithmetic has no bound, and ``floats``."""
    below = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    if isinstance(value, int | float if floats else int):
        yield value
    for each in below:
        yield from _numbers(each, floats=floats)


@contextmanager
def _apart() -> Iterator[None]:
    """Take back the precision that a call has set for the whole process."""
    mpmath = sys.modules.get("mpmath")
    before = mpmath.mp.prec if mpmath else None
    try:
        with decimal.localcontext():
            yield
    finally:
        if mpmath:
            mpmath.mp.prec = before


@contextmanager
def _bounded() -> Iterator[None]:
    """End a call after :data:`WORK` calls of functions, always at the same one, by raising in the midst of it."""
    left = WORK

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        left -= event in ("call", "c_call")
        if left < 0:
            raise ValueError("too much work")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)


def _text(result: Any) -> str:
    """As upstream shows a result to the model, and compares it with the gold's."""
    if isinstance(result, str):
        return result
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):  # what JSON has no form for
            pass
    return str(result)


def _equal(one: Any, other: Any) -> bool:
    names = [name for name in vars(other) if not name.startswith("_")]
    return all(getattr(one, name) == getattr(other, name) for name in names)
