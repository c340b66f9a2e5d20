"""Function descriptions of BFCL as tools of a chat template: JSON Schema types, and names without dots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from m2rl_domain_agent.bfcl.categories import Language

__all__ = ["shown_name", "tools"]

_JSON_TYPES: Mapping[str, Iterable[str]] = {
    "integer": ("integer", "byte", "short", "long", "Bigint"),
    "number": ("number", "float", "double"),
    "boolean": ("boolean", "bool", "Boolean"),
    "array": ("array", "list", "tuple", "ArrayList", "Array", "Queue", "Stack"),
    "object": ("dict", "object", "HashMap", "Hashtable"),
}
_TYPES = {name: kind for kind, names in _JSON_TYPES.items() for name in names}
"""BFCL's type → JSON Schema's; what is not here, such as ``any``, is a string, as upstream shows it."""
_LANGUAGES = {"python": "Python 3", "java": "Java 8", "javascript": "JavaScript"}


def shown_name(name: str) -> str:
    """A function's name as the model sees it: chat APIs allow no dots, so upstream writes underscores."""
    return name.replace(".", "_")


def tools(functions: Iterable[Mapping[str, Any]], language: Language) -> tuple[dict[str, Any], ...]:
    """The functions in the style of chat templates.

    Arguments of Java and JavaScript functions are strings that hold literals of the language, as upstream has it.
    """
    return tuple({"type": "function", "function": _function(function, language)} for function in functions)


def _function(function: Mapping[str, Any], language: Language) -> dict[str, Any]:
    parameters = function["parameters"]
    properties = parameters["properties"]
    if language != "python":
        properties = {name: _literal(spec, language) for name, spec in properties.items()}
    return {
        **function,
        "name": shown_name(function["name"]),
        "description": f"{function.get('description', '')} (Syntax: {_LANGUAGES[language]}.)".strip(),
        "parameters": _schema({**parameters, "properties": properties}),
    }


def _literal(spec: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """A parameter as a string that holds a literal; what its type says moves into the description."""
    kind = "value of any type" if spec["type"] == "any" else spec["type"]
    says = [str(spec.get("description", "")), f"A {_LANGUAGES[language]} {kind}, written out as a string."]
    if isinstance(items := spec.get("items"), Mapping):
        says.append(f"Its elements are of type {items.get('type')} and are not strings themselves.")
    if "properties" in spec:
        says.append(f"Its entries, not strings themselves, follow this schema: {json.dumps(spec['properties'])}")
    rest = {name: value for name, value in spec.items() if name not in ("items", "properties")}
    return {**rest, "type": "string", "description": " ".join(says).strip()}


def _schema(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A type of BFCL and all below it as JSON Schema."""
    schema: dict[str, Any] = {**spec, "type": _TYPES.get(spec.get("type", ""), "string")}
    if spec.get("type") == "float":
        schema["description"] = f"{spec.get('description', '')} (A float.)".strip()
    if isinstance(below := spec.get("properties"), Mapping):
        schema["properties"] = {name: _schema(each) for name, each in below.items()}
    if isinstance(items := spec.get("items"), Mapping):
        schema["items"] = _schema(items)
    return schema
