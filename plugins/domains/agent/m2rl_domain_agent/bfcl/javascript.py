"""Literals of JavaScript, which arguments of JavaScript functions are written in, as plain values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from m2rl_domain_agent.bfcl.splitting import DEEPEST, INTEGER, LONGEST, SCIENTIFIC, parts, read

__all__ = ["javascript"]

_DECIMAL = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?")
_CONSTRUCTED = re.compile(r"new\s+Array\((.*)\)", re.DOTALL)


def javascript(text: str, kind: str, inner: str | None = None) -> Any:
    """The value of a literal of type ``kind``, elements of type ``inner``; the text itself where it is none."""
    if len(text) > LONGEST:
        return text
    stripped = text.strip()
    if kind == "array":
        return _array(stripped, lambda each: _element(each, inner or ""))
    if kind == "dict":
        return _object(stripped)
    return _scalar(text, kind)


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def _scalar(text: str, kind: str) -> Any:
    if kind == "String":
        return text[1:-1] if _quoted(text) else text
    if kind == "integer":
        return int(text) if INTEGER.fullmatch(text) else text
    if kind == "float":
        return float(text) if _DECIMAL.fullmatch(text) else text
    if kind == "Bigint":
        return int(text[:-1]) if text[-1:] == "n" and INTEGER.fullmatch(text[:-1]) else text
    if kind == "Boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _value(text: str, depth: int = 0) -> Any:
    """A value whose type is not declared."""
    if text[:1] == "[" or _CONSTRUCTED.fullmatch(text):
        return _array(text, lambda each: _value(each, depth + 1)) if depth < DEEPEST else text
    if text[:1] == "{":
        return _object(text, depth + 1) if depth < DEEPEST else text
    if _quoted(text):
        return text[1:-1]
    for kind in ("Boolean", "integer"):
        if (value := _scalar(text, kind)) is not text:
            return value
    return float(text) if SCIENTIFIC.fullmatch(text) else text


def _element(text: str, inner: str) -> Any:
    if text[:1] == "[" or inner in ("", "array", "dict"):
        return _value(text)
    return _scalar(text, inner)


def _array(text: str, element: Callable[[str], Any]) -> Any:
    found = _CONSTRUCTED.fullmatch(text)
    if found is None and not (text[:1] == "[" and text[-1:] == "]"):
        return text
    return read(found[1] if found else text[1:-1], text, element)


def _object(text: str, depth: int = 0) -> Any:
    entries = parts(text[1:-1], ",") if text[:1] == "{" and text[-1:] == "}" else None
    if entries is None:
        return text
    pairs = [parts(entry, ":", most=1) for entry in entries]
    if any(pair is None or len(pair) != 2 for pair in pairs):
        return text
    return {pair[0].strip("'\""): _entry(pair[1], depth) for pair in pairs if pair}


def _entry(text: str, depth: int) -> Any:
    """A value of an object: upstream takes quotes off before it looks, so that ``"5"`` is a number."""
    return _value(text if text[:1] in ("[", "{") else text.strip("'\""), depth)
