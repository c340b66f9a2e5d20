"""JSON of plain values, by their exact types: nothing that a program can redefine is called on its objects."""

from __future__ import annotations

from _json import encode_basestring_ascii  # type: ignore[import-not-found]
from collections.abc import Callable
from typing import Any

__all__ = ["dump"]

_DEPTH = 200
_NUMBERS: dict[type, Callable[[Any], str]] = {int: int.__repr__, bool: lambda value: "true" if value else "false"}


def _float(value: float) -> str:
    text = float.__repr__(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _dump(value: Any, depth: int, say: Callable[[str], None]) -> None:
    kind = type(value)
    if depth > _DEPTH:
        raise ValueError(f"nested deeper than {_DEPTH}")
    if value is None:
        say("null")
    elif kind is str:
        say(encode_basestring_ascii(value))
    elif kind is float:
        say(_float(value))
    elif kind in _NUMBERS:
        say(_NUMBERS[kind](value))
    elif kind is list or kind is tuple:
        _dump_sequence(value, depth, say)
    elif kind is dict:
        _dump_mapping(value, depth, say)
    else:
        raise TypeError(f"a {kind.__name__} is not one of JSON's types")


def _dump_sequence(value: list[Any] | tuple[Any, ...], depth: int, say: Callable[[str], None]) -> None:
    mark = "["
    for item in value:
        say(mark)
        _dump(item, depth + 1, say)
        mark = ","
    say("]" if mark == "," else "[]")


def _dump_mapping(value: dict[Any, Any], depth: int, say: Callable[[str], None]) -> None:
    mark = "{"
    for key, item in value.items():
        say(mark)
        say(encode_basestring_ascii(_key(key)))
        say(":")
        _dump(item, depth + 1, say)
        mark = ","
    say("}" if mark == "," else "{}")


def _key(key: Any) -> str:
    """As JSON writes it: numbers and constants become text."""
    if type(key) is str:
        return key
    parts: list[str] = []
    if key is None or type(key) in (int, bool, float):
        _dump(key, 0, parts.append)
        return parts[0]
    raise TypeError(f"a key of type {type(key).__name__} is not one of JSON's")


def dump(value: Any) -> str:
    """JSON text.

    Raises:
        TypeError: something in it is of no plain type: int, float, str, bool, None, list, tuple or dict, and no subclass.
        ValueError: it is nested too deeply, or holds an integer of more digits than Python writes.
    """
    parts: list[str] = []
    _dump(value, 0, parts.append)
    return "".join(parts)
