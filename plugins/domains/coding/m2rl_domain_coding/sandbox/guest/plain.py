"""JSON of plain values by their exact types: what a program redefines, on its objects or in modules, is not called."""

from __future__ import annotations

from _json import encode_basestring_ascii as _quote
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

__all__ = ["dump"]

_DEPTH = 200
_kind_of = type  # the program can replace the built-in name
_Error, _Depth = TypeError, ValueError
_integer, _decimal, _items = int.__repr__, float.__repr__, dict.items
_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _float(value: float) -> str:
    text = _decimal(value)
    return _SPECIAL.get(text, text)


_SCALARS: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "null",
    bool: lambda value: "true" if value else "false",
    int: _integer,
    float: _float,
    str: _quote,
}


def _dump(value: Any, depth: int, say: Callable[[str], None]) -> None:
    kind = _kind_of(value)
    if scalar := _SCALARS.get(kind):
        say(scalar(value))
    elif depth > _DEPTH:
        raise _Depth("the value is nested too deeply")
    elif container := _CONTAINERS.get(kind):
        container(value, depth, say)
    else:
        raise _Error(f"a {kind.__name__} is not one of JSON's types")


def _sequence(value: list[Any] | tuple[Any, ...], depth: int, say: Callable[[str], None]) -> None:
    mark = "["
    for item in value:
        say(mark)
        _dump(item, depth + 1, say)
        mark = ","
    say("]" if mark == "," else "[]")


def _mapping(value: dict[Any, Any], depth: int, say: Callable[[str], None]) -> None:
    mark = "{"
    for key, item in _items(value):
        say(mark)
        say(_quote(_key(key)))
        say(":")
        _dump(item, depth + 1, say)
        mark = ","
    say("}" if mark == "," else "{}")


_CONTAINERS: dict[type, Callable[[Any, int, Callable[[str], None]], None]] = {
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
    **dict.fromkeys((Counter, OrderedDict, defaultdict), _mapping),  # the library's own, what functions often return
}


def _key(key: Any) -> str:
    """As JSON writes it: numbers and constants become text."""
    kind = _kind_of(key)
    if kind not in _SCALARS:
        raise _Error(f"a key of type {kind.__name__} is not one of JSON's")
    return key if kind is _kind_of("") else _SCALARS[kind](key)


def dump(value: Any) -> str:
    """JSON text.

    Raises:
        TypeError: something in it is no int, float, str, bool, None, list, tuple or dict (the library's own kinds of it
            included), but perhaps of a subclass.
        ValueError: it is nested too deeply, or holds an integer of more digits than Python writes.
    """
    parts: list[str] = []
    _dump(value, 0, parts.append)
    return "".join(parts)
