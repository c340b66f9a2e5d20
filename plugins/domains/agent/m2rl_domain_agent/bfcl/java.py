"""Literals of Java, which arguments of Java functions are written in, as plain values."""

from __future__ import annotations

import re
from typing import Any

from m2rl_domain_agent.bfcl.splitting import INTEGER, LONGEST, SCIENTIFIC, parts, read

__all__ = ["java"]

_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*)\}", re.DOTALL)
_LIST = re.compile(r"new\s+ArrayList<\w*>\s*\((?:Arrays\.asList\((.*)\))?\)", re.DOTALL)
_FILLED = re.compile(r"new\s+(ArrayList|HashMap)<[^()]*>\s*\(\)\s*\{(.*)\}", re.DOTALL)
_MAP = re.compile(r"new\s+HashMap<[^()]*>\s*\(\)")
_ADD = re.compile(r"add\((.*)\)", re.DOTALL)
_PUT = re.compile(r'put\(\s*"([^"]*)"\s*,(.*)\)', re.DOTALL)


def java(text: str, kind: str, inner: str | None = None) -> Any:
    """The value of a Java literal of type ``kind``, elements of type ``inner``; the text itself where it is none."""
    if len(text) > LONGEST:
        return text
    if kind == "ArrayList":
        return _list(text.strip(), inner)
    if kind == "Array":
        found = _ARRAY.fullmatch(text.strip())
        return text if found is None else read(found[1], text, lambda each: _scalar(each, inner or ""))
    if kind == "HashMap":
        return _map(text.strip())
    return _scalar(text, kind)


def _scalar(text: str, kind: str) -> Any:
    if kind in ("byte", "short", "integer"):
        return int(text) if INTEGER.fullmatch(text) else text
    if kind == "long":
        return int(text[:-1]) if text[-1:] in ("l", "L") and INTEGER.fullmatch(text[:-1]) else text
    if kind == "float":
        return float(text[:-1]) if text[-1:] in ("f", "F") and SCIENTIFIC.fullmatch(text[:-1]) else text
    if kind == "double":
        return float(text) if SCIENTIFIC.fullmatch(text) else text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


def _value(text: str) -> Any:
    """A value whose type is not declared."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    for kind in ("boolean", "long", "float", "integer", "double"):
        if (value := _scalar(text, kind)) is not text:
            return value
    return text


def _element(text: str, inner: str | None) -> Any:
    """An element of an ArrayList: unquoted where quotes are expected, as upstream does for lists, not for arrays."""
    if inner in ("char", "String"):
        return text[1:-1]
    return _scalar(text, inner) if inner else _value(text)


def _list(text: str, inner: str | None) -> Any:
    if found := _LIST.fullmatch(text):
        return [] if found[1] is None else read(found[1], text, lambda each: _element(each, inner))
    if (found := _FILLED.fullmatch(text)) and found[1] == "ArrayList":
        added = _statements(found[2], _ADD)
        return text if added is None else [_element(one[1].strip(), inner) for one in added]
    return text


def _map(text: str) -> Any:
    if _MAP.fullmatch(text):
        return {}
    if (found := _FILLED.fullmatch(text)) and found[1] == "HashMap":
        put = _statements(found[2], _PUT)
        return text if put is None else {one[1]: _value(one[2].strip()) for one in put}
    return text


def _statements(body: str, form: re.Pattern[str]) -> list[re.Match[str]] | None:
    """The statements of an initialiser; ``None`` where one does not have the form."""
    body = body.strip()
    cut = parts(body[1:-1] if body[:1] == "{" and body[-1:] == "}" else body, ";")
    found = [form.fullmatch(each) for each in cut or []]
    return None if cut is None or None in found else [each for each in found if each is not None]
