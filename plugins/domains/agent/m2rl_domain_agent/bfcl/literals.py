"""Literals of Java and JavaScript, which arguments of such functions are written in, as plain values.

The rules are upstream's type converters', oddities included: what is no literal of the wanted type stays the text that
it is. Unlike theirs, whose expressions are not anchored, a literal must be the whole text, and commas and brackets
inside quotes or deeper brackets separate nothing. Time is linear in the length of the text, which is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["java", "javascript"]

LONGEST, DEEPEST = 20_000, 32
"""Characters, and brackets within brackets, of a literal; text beyond is none."""

_INTEGER = re.compile(r"-?[0-9]{1,4000}")
_DECIMAL = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?")
_SCIENTIFIC = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,9})?")
_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*)\}", re.DOTALL)
_LIST = re.compile(r"new\s+ArrayList<\w*>\s*\((?:Arrays\.asList\((.*)\))?\)", re.DOTALL)
_FILLED = re.compile(r"new\s+(ArrayList|HashMap)<[^()]*>\s*\(\)\s*\{(.*)\}", re.DOTALL)
_MAP = re.compile(r"new\s+HashMap<[^()]*>\s*\(\)")
_ADD = re.compile(r"add\((.*)\)", re.DOTALL)
_PUT = re.compile(r'put\(\s*"([^"]*)"\s*,(.*)\)', re.DOTALL)
_CONSTRUCTED = re.compile(r"new\s+Array\((.*)\)", re.DOTALL)


def java(text: str, kind: str, inner: str | None = None) -> Any:
    """The value of a Java literal of type ``kind``, elements of type ``inner``; the text itself where it is none."""
    if len(text) > LONGEST:
        return text
    if kind == "ArrayList":
        return _java_list(text.strip(), inner)
    if kind == "Array":
        found = _ARRAY.fullmatch(text.strip())
        return text if found is None else _read(found[1], text, lambda each: _java_scalar(each, inner or ""))
    if kind == "HashMap":
        return _java_map(text.strip())
    return _java_scalar(text, kind)


def javascript(text: str, kind: str, inner: str | None = None) -> Any:
    """The same of JavaScript."""
    if len(text) > LONGEST:
        return text
    stripped = text.strip()
    if kind == "array":
        return _js_array(stripped, lambda each: _js_element(each, inner or ""))
    if kind == "dict":
        return _js_object(stripped)
    return _js_scalar(text, kind)


# ── Java ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _java_scalar(text: str, kind: str) -> Any:
    if kind in ("byte", "short", "integer"):
        return int(text) if _INTEGER.fullmatch(text) else text
    if kind == "long":
        return int(text[:-1]) if text[-1:] in ("l", "L") and _INTEGER.fullmatch(text[:-1]) else text
    if kind == "float":
        return float(text[:-1]) if text[-1:] in ("f", "F") and _SCIENTIFIC.fullmatch(text[:-1]) else text
    if kind == "double":
        return float(text) if _SCIENTIFIC.fullmatch(text) else text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _java_value(text: str) -> Any:
    """A value whose type is not declared."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    for kind in ("boolean", "long", "float", "integer", "double"):
        if (value := _java_scalar(text, kind)) is not text:
            return value
    return text


def _java_element(text: str, inner: str | None) -> Any:
    """An element of an ArrayList: unquoted where quotes are expected, as upstream does for lists, not for arrays."""
    if inner in ("char", "String"):
        return text[1:-1]
    return _java_scalar(text, inner) if inner else _java_value(text)


def _java_list(text: str, inner: str | None) -> Any:
    if found := _LIST.fullmatch(text):
        return [] if found[1] is None else _read(found[1], text, lambda each: _java_element(each, inner))
    if (found := _FILLED.fullmatch(text)) and found[1] == "ArrayList":
        added = _statements(found[2], _ADD)
        return text if added is None else [_java_element(one[1].strip(), inner) for one in added]
    return text


def _java_map(text: str) -> Any:
    if _MAP.fullmatch(text):
        return {}
    if (found := _FILLED.fullmatch(text)) and found[1] == "HashMap":
        put = _statements(found[2], _PUT)
        return text if put is None else {one[1]: _java_value(one[2].strip()) for one in put}
    return text


def _statements(body: str, form: re.Pattern[str]) -> list[re.Match[str]] | None:
    """The statements of an initialiser; ``None`` where one does not have the form."""
    body = body.strip()
    parts = _split(body[1:-1] if body[:1] == "{" and body[-1:] == "}" else body, ";")
    found = [form.fullmatch(each) for each in parts or []]
    return None if parts is None or None in found else [each for each in found if each is not None]


# ── JavaScript ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def _js_scalar(text: str, kind: str) -> Any:
    if kind == "String":
        return text[1:-1] if _quoted(text) else text
    if kind == "integer":
        return int(text) if _INTEGER.fullmatch(text) else text
    if kind == "float":
        return float(text) if _DECIMAL.fullmatch(text) else text
    if kind == "Bigint":
        return int(text[:-1]) if text[-1:] == "n" and _INTEGER.fullmatch(text[:-1]) else text
    if kind == "Boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _js_value(text: str, depth: int = 0) -> Any:
    """A value whose type is not declared."""
    if text[:1] == "[" or _CONSTRUCTED.fullmatch(text):
        return _js_array(text, lambda each: _js_value(each, depth + 1)) if depth < DEEPEST else text
    if text[:1] == "{":
        return _js_object(text, depth + 1) if depth < DEEPEST else text
    if _quoted(text):
        return text[1:-1]
    for kind in ("Boolean", "integer"):
        if (value := _js_scalar(text, kind)) is not text:
            return value
    return float(text) if _SCIENTIFIC.fullmatch(text) else text


def _js_element(text: str, inner: str) -> Any:
    if text[:1] == "[" or inner in ("", "array", "dict"):
        return _js_value(text)
    return _js_scalar(text, inner)


def _js_array(text: str, element: Callable[[str], Any]) -> Any:
    found = _CONSTRUCTED.fullmatch(text)
    if found is None and not (text[:1] == "[" and text[-1:] == "]"):
        return text
    return _read(found[1] if found else text[1:-1], text, element)


def _js_object(text: str, depth: int = 0) -> Any:
    parts = _split(text[1:-1], ",") if text[:1] == "{" and text[-1:] == "}" else None
    if parts is None:
        return text
    pairs = [_split(part, ":", most=1) for part in parts]
    if any(pair is None or len(pair) != 2 for pair in pairs):
        return text
    return {pair[0].strip("'\""): _js_entry(pair[1], depth) for pair in pairs if pair}


def _js_entry(text: str, depth: int) -> Any:
    """A value of an object: upstream takes quotes off before it looks, so that ``"5"`` is a number."""
    return _js_value(text if text[:1] in ("[", "{") else text.strip("'\""), depth)


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(body: str, text: str, element: Callable[[str], Any]) -> Any:
    """The elements of a list, or the text where the brackets in it do not match."""
    parts = _split(body, ",")
    return text if parts is None else [element(part) for part in parts]


def _split(body: str, separator: str, most: int = -1) -> list[str] | None:
    """The stripped parts of ``body`` between top-level separators, without an empty last one.

    Returns ``None`` where brackets or quotes do not match.
    """
    parts, start, open_, quote = list[str](), 0, list[str](), ""
    for at, sign in enumerate(body):
        if quote:
            quote = "" if sign == quote and body[at - 1] != "\\" else quote
        elif sign in "\"'" and (at == 0 or not body[at - 1].isalnum()):  # an apostrophe opens nothing
            quote = sign
        elif sign in "([{":
            open_.append({"(": ")", "[": "]", "{": "}"}[sign])
        elif sign in ")]}":
            if not open_ or open_.pop() != sign:
                return None
        elif sign == separator and not open_ and most:
            parts.append(body[start:at])
            start, most = at + 1, most - 1
    if open_ or quote:
        return None
    last = body[start:].strip()
    return [*map(str.strip, parts), *([last] if last else [])]
