"""pydantic's complaints in the user's words: the full path of a key, what was found and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from reprlib import Repr
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from m2rl_core.errors import nearest
from m2rl_core.redaction import masked, redacted

__all__ = ["Keys", "Problem", "dotted", "problems"]

Keys = tuple[int | str, ...]
"""Keys and list indices that lead to a value."""

_short = Repr()
_short.maxstring = _short.maxother = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a piece of configuration."""

    path: Keys
    """From the top of what was validated."""
    text: str
    """What is wrong, as one sentence or more without the path."""

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}"


def dotted(path: Keys) -> str:
    """``("stages", "math", "models", 0)`` as ``stages.math.models[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def problems(
    error: ValidationError, model: type[BaseModel], data: object, *, owner: str = "", also: Sequence[str] = ()
) -> list[Problem]:
    """One :class:`Problem` for each key that ``model`` refuses in ``data``.

    Args:
        owner: dotted path of ``data`` within its file; it starts every path.
        also: names that the owner accepts beside ``model``'s own, to be suggested too.
    """
    texts: dict[Keys, list[str]] = {}
    for detail in error.errors(include_url=False):
        path, text = _explain(detail, model, data, also)
        found = texts.setdefault(path, [])
        if text not in found:  # the branches of a union complain one by one
            found.append(text)
    top: Keys = (owner,) if owner else ()
    return [Problem(top + path, " Or: ".join(found)) for path, found in texts.items()]


def _explain(detail: ErrorDetails, model: type[BaseModel], data: object, also: Sequence[str]) -> tuple[Keys, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    path = _keys(detail["loc"], data, missing=kind == "missing")
    if kind == "extra_forbidden":
        known = [name for owner in _owners(model, detail["loc"][:-1], data) for name in owner.model_fields]
        known += also if len(detail["loc"]) == 1 else ()
        return path, "unknown key." + (nearest(str(path[-1]), known) or f" Allowed: {', '.join(dict.fromkeys(known))}.")
    if kind == "missing":
        return path, "this key is required."
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        key = str(context["discriminator"]).strip("'")
        if kind == "union_tag_not_found":
            fields = (owner.model_fields.get(key) for owner in _owners(model, detail["loc"], data))
            tags = [str(tag) for field in fields if field for tag in get_args(field.annotation)]
            return (*path, key), f"this key is required. Allowed: {', '.join(tags)}."
        tags = str(context["expected_tags"]).replace("'", "").split(", ")
        tag = str(context["tag"])
        return (*path, key), f"'{tag}' is not known.{nearest(tag, tags)} Allowed: {', '.join(tags)}."
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if kind in {"dict_type", "model_type", "model_attributes_type"}:
        text = "should be a mapping"
    hint = ""
    if kind == "literal_error" and isinstance(detail["input"], str):
        hint = nearest(detail["input"], str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    found = _short.repr(masked(detail["input"], path[-1] if path else ""))
    return path, f"{redacted(text)}, found {found}.{hint}"


def _keys(location: Keys, data: object, *, missing: bool) -> Keys:
    """``location`` without the names of union branches that pydantic puts between the keys."""
    kept = [part for part, is_key in _parts(location, data) if is_key]
    return (*kept, location[-1]) if missing else tuple(kept)


def _parts(location: Keys, data: object) -> Iterator[tuple[int | str, bool]]:
    """Each part of ``location``, and whether it leads on in ``data`` or is the name of a union's branch."""
    for part in location:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            yield part, False
            continue
        yield part, True


def _owners(model: type[BaseModel], location: Keys, data: object) -> list[type[BaseModel]]:
    """The models that may stand at ``location`` below ``model``; several where a union is undecided."""
    owners = [model]
    for part, is_key in _parts(location, data):
        if is_key:
            fields = [owner.model_fields[str(part)] for owner in owners if part in owner.model_fields]
            chosen = [found for field in fields for found in _models(field.annotation)]
        else:
            chosen = [owner for owner in owners if part == owner.__name__ or part in _tags(owner)]
        owners = chosen or owners
    return owners


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Every model named in a type, e.g. both of ``dict[str, A | B]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _tags(model: type[BaseModel]) -> list[str]:
    """The values by which a discriminated union tells ``model`` from others."""
    literals = (get_args(f.annotation) for f in model.model_fields.values() if get_origin(f.annotation) is Literal)
    return [str(values[0]) for values in literals if len(values) == 1]
