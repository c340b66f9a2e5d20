"""Whether one argument is among the accepted values: upstream's rules for types, texts, lists and dictionaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from m2rl_domain_agent.bfcl.categories import Language
from m2rl_domain_agent.bfcl.java import java
from m2rl_domain_agent.bfcl.javascript import javascript

__all__ = ["accepted", "knows"]

_TYPES: Mapping[Language, Mapping[str, type]] = {
    "python": {
        "string": str,
        "integer": int,
        "float": float,
        "boolean": bool,
        "array": list,
        "tuple": list,
        "dict": dict,
        "any": str,
    },
    "java": {
        "byte": int,
        "short": int,
        "integer": int,
        "long": int,
        "float": float,
        "double": float,
        "boolean": bool,
        "char": str,
        "String": str,
        "any": str,
        "Array": list,
        "ArrayList": list,
        "HashMap": dict,
    },
    "javascript": {
        "String": str,
        "integer": int,
        "float": float,
        "Bigint": int,
        "Boolean": bool,
        "array": list,
        "dict": dict,
        "any": str,
    },
}
_LISTS = ("array", "tuple", "Array", "ArrayList")
"""Types whose elements have a type of their own."""
_IGNORED = re.compile(r"[ ,./\-_*^]")
_LITERALS: Mapping[Language, Callable[[str, str, str | None], Any]] = {
    "java": java,
    "javascript": javascript,
}


def knows(spec: Any, language: Language) -> bool:
    """Whether :func:`accepted` can judge values of this type."""
    types = _TYPES[language]
    if not isinstance(spec, Mapping) or spec.get("type") not in types:
        return False
    items = spec.get("items")
    return spec["type"] not in _LISTS or (isinstance(items, Mapping) and items.get("type") in types)


def accepted(value: Any, spec: Mapping[str, Any], answers: Sequence[Any], language: Language) -> bool:
    """Whether ``value`` has the type that the function's description gives, and is one of ``answers``.

    A value of another type is taken for a variable where the answers have that type, and then compared as it is.

    Args:
        value: plain JSON data.
        spec: the parameter in the description; :func:`knows` it.
        answers: the accepted values; ``""`` among them says that the parameter may be left out.
        language: in Java and JavaScript, arguments are literals in a string.
    """
    types, kind = _TYPES[language], spec["type"]
    expected = types[kind]
    inner = types[spec["items"]["type"]] if kind in _LISTS else None
    if language != "python":
        if not isinstance(value, str):
            return False
        value = _LITERALS[language](value, kind, spec["items"]["type"] if inner else None)
    elif kind == "float" and type(value) is int and abs(value) < 1 << 1023:
        value = float(value)
    variable = _variable(value, expected, inner, answers)
    if variable is None:
        return False
    return value in answers if variable else _among(value, expected, inner, answers)


def _sample(answers: Sequence[Any]) -> type | None:
    """The type of the first answer that is one."""
    return next((type(answer) for answer in answers if answer != ""), None)


def _variable(value: Any, expected: type, inner: type | None, answers: Sequence[Any]) -> bool | None:
    """Whether the value stands for a variable; ``None`` where its type is wrong."""
    sample = _sample(answers)
    kind: object = type(value)  # not narrowed: it is compared, not known
    if kind is not expected:
        return True if kind is sample else None
    if inner is not None and not any(_elements_fit(value, inner, answer) for answer in answers):
        return None
    return sample not in (None, expected)


def _elements_fit(value: Sequence[Any], inner: type, answer: Any) -> bool:
    if not isinstance(answer, list):
        return True
    return all(type(element) in (inner, _sample(answer)) for element in value)


def _among(value: Any, expected: type, inner: type | None, answers: Sequence[Any]) -> bool:
    """Whether a value of the expected type is one of the answers."""
    if expected is dict:
        return any(_same_dict(value, answer) for answer in answers)
    if expected is list and inner is dict:
        return any(_same_dicts(value, answer) for answer in answers if _is_list(answer))
    if expected is str:
        return _plain(value) in [_plain(answer) for answer in answers if isinstance(answer, str)]
    if expected is list:
        return list(map(_plain, value)) in [list(map(_plain, answer)) for answer in answers if _is_list(answer)]
    return value in answers


def _plain(value: Any) -> Any:
    """A text without spaces and punctuation, in lower case, its quotes all alike; another value as it is."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value


def _is_list(answer: Any) -> bool:
    """``""`` is one too: what may be left out may be empty."""
    return isinstance(answer, list) or answer == ""


def _same_dict(value: Any, answer: Any) -> bool:
    """The answer has a list of accepted values for each key; a key may be missing where ``""`` is one of them."""
    if not isinstance(value, dict) or not isinstance(answer, dict):
        return False
    if any(key not in answer or _plain(below) not in list(map(_plain, answer[key])) for key, below in value.items()):
        return False
    return all(key in value or "" in choices for key, choices in answer.items())


def _same_dicts(value: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Dictionaries one by one."""
    return len(value) == len(answer) and all(map(_same_dict, value, answer))
