"""Settings of a pydantic model as a Markdown table: name, type, default and what the model's own docstrings say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["prose", "settings_table", "table", "type_name"]

BOUNDS = {Gt: (">", "gt"), Ge: ("≥", "ge"), Lt: ("<", "lt"), Le: ("≤", "le")}


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; bars and line ends within cells are escaped."""
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_table(model: type[BaseModel], *, but: frozenset[str] = frozenset()) -> str:
    """The settings of ``model``, those of nested models as ``outer.inner``; a sentence where there are none."""
    rows = [row for row in _rows(model, "") if row[0].strip("`") not in but]
    return table(["setting", "type", "default", "meaning"], rows) if rows else "No settings."


def _rows(model: type[BaseModel], prefix: str, given: BaseModel | None = None) -> Iterator[list[str]]:
    """A row per setting; the defaults are those of ``given`` where an outer model has other ones than ``model``."""
    for name, field in model.model_fields.items():
        default = (
            field.get_default(call_default_factory=True, validated_data={}) if given is None else getattr(given, name)
        )
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, f"{prefix}{name}.", default if isinstance(default, BaseModel) else None)
        else:
            yield [f"`{prefix}{name}`", _limited(field), _shown(default), prose(field.description or "")]


def _shown(value: Any) -> str:
    """A default as a user of YAML would write it."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    value = sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value
    empty = isinstance(value, list | dict | str) and not value
    return "empty" if empty else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _limited(field: FieldInfo) -> str:
    """The type with its bounds, as ``float ≥ 0.0 ≤ 1.0``."""
    bounds = [
        f"{sign} {getattr(each, name)}"
        for each in field.metadata
        for sign, name in [BOUNDS.get(type(each), ("", ""))]
        if name
    ]
    return " ".join([type_name(field.annotation), *bounds])


def type_name(annotation: Any) -> str:
    """A type as a user of YAML would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "none"
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_name(each) for each in arguments))
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_name(arguments[0])}" if arguments else "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"map of {type_name(arguments[0])} to {type_name(arguments[1])}"
    named = {
        str: "text",
        bool: "true or false",
        int: "integer",
        float: "number",
        Any: "anything",
        dict: "map",
        list: "list",
    }
    return named.get(annotation) or getattr(annotation, "__name__", str(annotation))


def prose(text: str) -> str:
    """A docstring's reStructuredText as Markdown: roles and double backticks become code."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)
