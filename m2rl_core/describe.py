"""What a component says of itself, as data: its settings with types, defaults and meanings, its presets, its reference.

The source is the component's own class: its docstring, its ``reference``, and the strings beneath the fields of its
``Config``, which give units and the paper's section. ``m2rl plugins show`` prints it, and the documentation is made of
it, that of the study file included.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.registry import Entry, Kind
from m2rl_core.registry.parts import presets_of

__all__ = ["REQUIRED", "Description", "PresetDescription", "Setting", "describe", "markdown", "settings"]

REQUIRED = "required"
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    list: "list",
    tuple: "list",
    dict: "mapping",
    Mapping: "mapping",
    Any: "anything",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key that a study may set."""

    name: str
    """Dotted where it lies in another, as ``sandbox.url``."""
    type: str
    """In words for someone who writes YAML, bounds included, as ``number ≥ 0.0, < 1.0``."""
    default: str
    """As JSON, which is YAML, or :data:`REQUIRED`."""
    text: str
    """What it means, in which unit, and where it comes from, in Markdown; empty where the class does not say."""


@dataclass(frozen=True, slots=True)
class PresetDescription:
    """A name for several settings, as in ``{use: ties, preset: released-code}``."""

    name: str
    settings: str
    """As JSON."""
    note: str


@dataclass(frozen=True, slots=True)
class Description:
    """One component."""

    kind: Kind
    name: str
    distribution: str
    version: str
    text: str
    """The docstring of its class, in Markdown; of a merger, that of its module, which has the formula, before it."""
    reference: str
    """Paper section or URL that defines it."""
    settings: tuple[Setting, ...]
    """In the order in which the class has them."""
    presets: tuple[PresetDescription, ...]
    parts: Mapping[str, str]
    """Settings that name other components → their kind."""


def describe(entry: Entry) -> Description:
    """What the class behind ``entry`` says; it is imported now if it was not.

    Raises:
        Exception: whatever its module raises when it is imported.
    """
    presets, parts = presets_of(entry).items(), dict(getattr(entry.cls, "parts", {}))
    return Description(
        entry.kind,
        entry.name,
        entry.distribution,
        entry.version,
        _about(entry),
        entry.cls.reference,
        tuple(_named(setting, parts) for setting in settings(cast("type[ComponentConfig]", entry.cls.Config))),
        tuple(PresetDescription(name, _json(preset.settings), preset.note) for name, preset in presets),
        parts,
    )


def settings(model: type[BaseModel]) -> Iterator[Setting]:
    """The fields of a model, each followed by those of the models that it may itself be."""
    return _settings(model, "", None)


def markdown(docstring: str | None) -> str:
    """A docstring with its marks of reStructuredText as plain backquotes, line by line as it was."""
    return _ROLE.sub(r"`\1`", inspect.cleandoc(docstring or "").replace("``", "`"))


def _about(entry: Entry) -> str:
    docstrings = [sys.modules[entry.cls.__module__].__doc__] if entry.kind == "merger" else []
    return "\n\n".join(filter(None, map(markdown, [*docstrings, entry.cls.__doc__])))


def _named(setting: Setting, parts: Mapping[str, str]) -> Setting:
    """``setting`` with what a study writes where it names another component."""
    kind = parts.get(setting.name)
    return setting if kind is None else replace(setting, type=f"name of a {kind}, or its settings")


def _settings(model: type[BaseModel], above: str, given: BaseModel | None) -> Iterator[Setting]:
    """Defaults are those of ``given`` where a field above holds other ones than ``model``."""
    for name, field in model.model_fields.items():
        if name == "use" and len(get_args(field.annotation)) == 1:
            continue  # tells one form of the setting from the other; the setting's type says so already
        default = _default(field) if given is None else getattr(given, name)
        shown = REQUIRED if default is PydanticUndefined else _json(default)
        yield Setting(above + name, _type(field.annotation, field.metadata), shown, markdown(field.description))
        for inner in _models(field.annotation):
            yield from _settings(inner, f"{above}{name}.", default if isinstance(default, inner) else None)


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value may be, not those that it may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for argument in get_args(annotation):
            yield from _models(argument)


def _json(value: object) -> str:
    return json.dumps(_written(value) if isinstance(value, BaseModel) else value, ensure_ascii=False, default=str)


def _written(value: BaseModel) -> dict[str, Any]:
    """What a study would write to have it: its form, and what differs from the defaults of that."""
    form = {"use": value.use} if "use" in type(value).model_fields else {}  # type: ignore[attr-defined]
    return form | value.model_dump(mode="json", exclude_defaults=True)


def _type(annotation: Any, metadata: Any = ()) -> str:
    """A type in words, with the bounds that ``metadata`` names."""
    if type(None) in (arguments := get_args(annotation)):
        rest = tuple(each for each in arguments if each is not NoneType)
        return f"{_type(Union[rest], metadata)} or null"  # noqa: UP007 (of types that are known at run time only)
    found = [(sign, getattr(each, key)) for key, sign in _BOUNDS for each in _flat(metadata) if hasattr(each, key)]
    bounds, text = ", ".join(f"{sign} {bound}" for sign, bound in found), _bare(annotation)
    return f"{text} {bounds}" if bounds else text


def _flat(metadata: Any) -> Iterator[object]:
    """Constraints, those within a ``Field(...)`` of an ``Annotated`` included."""
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else [each]


def _bare(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, arguments)))
    if origin is Literal:
        return " or ".join(map(_json, arguments))
    if origin in (list, tuple):
        return f"list of {', '.join(dict.fromkeys(_type(each) for each in arguments if each is not ...))}"
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "mapping" if Any in arguments else f"mapping of {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        uses = annotation.model_fields.get("use")
        return "mapping" if uses is None else f"mapping with use: {_type(uses.annotation)}"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
