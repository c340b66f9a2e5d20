"""The JSON Schema of study files (draft 2020-12), as a user writes them: with shorthands, scales and ``x-*`` blocks.

Editors complete and explain keys by it. What two keys say together, and components that are not installed here, only
``m2rl check`` can judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from m2rl_core.config.scales import SCALE, SCALES
from m2rl_core.config.study import Study
from m2rl_core.registry import KINDS, Kind, Registry
from m2rl_core.registry.parts import presets_of

if TYPE_CHECKING:
    from m2rl_core.registry import Entry

__all__ = ["schema"]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
WEIGHTED = ("advantage", "loss")
"""Kinds of which several may be added up, each with a ``weight``."""
Tree = dict[str, Any]


def schema(registry: Registry | None = None) -> Tree:
    """The schema of a study.

    Args:
        registry: whose components' settings it describes; without one every component takes any.
    """
    found = Study.model_json_schema()
    defs: Tree = found["$defs"]
    own = defs.pop("DomainSection")["properties"]
    defs.update(_components(registry or Registry(), {"domain": {"reasoning": own["reasoning"]}}))
    for part in (found, *defs.values()):
        _refer(part)
    found["properties"]["domains"]["additionalProperties"] = _reference("domain")
    found["properties"] |= {
        SCALE: {"type": "string", "description": "Which of the scales to run the study at."},
        SCALES: {"type": "object", "additionalProperties": {"type": "object"}, "description": "Named sets of changes."},
    }
    found["patternProperties"] = {"^x-": {}}
    return {"$schema": DRAFT, **found}


def _components(registry: Registry, beside: Mapping[str, Tree]) -> Tree:
    """A definition per kind, ``KIND``, and per component, ``KIND.NAME``.

    Args:
        beside: kind → properties that the core reads beside the component's own.
    """
    defs: Tree = {}
    for kind in KINDS:
        more = {**beside.get(kind, {}), **({"weight": {"type": "number"}} if kind in WEIGHTED else {})}
        known = {}
        for name in registry.names(kind):
            entry = registry.lookup(kind, name)
            if described := _described(entry, more):
                defs |= described
                known[name] = {"$ref": f"#/$defs/{kind}.{name}"}
        defs[kind] = _kind(kind, registry.names(kind), known)
    return defs


def _kind(kind: Kind, names: list[str], known: Mapping[str, Tree]) -> Tree:
    """A component of a kind: its name, or an object whose ``use`` decides which keys it has."""
    name: Tree = {"anyOf": [{"enum": names}, {"type": "string"}]} if names else {"type": "string"}
    rules = [
        {"if": {"properties": {"use": {"const": each}}, "required": ["use"]}, "then": described}
        for each, described in known.items()
    ]
    spelled_out: Tree = {"type": "object", "properties": {"use": name}}
    if kind not in ("advantage", "importance", "loss"):  # an algorithm's parts may be changed without being named
        spelled_out["required"] = ["use"]
    return {"anyOf": [name, spelled_out | ({"allOf": rules} if rules else {})]}


def _described(entry: Entry, more: Tree) -> Tree:
    """The definitions of one component; none where its settings have no schema."""
    from pydantic.errors import PydanticInvalidForJsonSchema

    key = f"{entry.kind}.{entry.name}"
    try:
        found: Tree = entry.cls.Config.model_json_schema(ref_template=f"#/$defs/{key}.{{model}}")  # type: ignore[attr-defined]  # a property to type checkers alone
    except PydanticInvalidForJsonSchema:
        return {}
    inner = {f"{key}.{name}": each for name, each in found.pop("$defs", {}).items()}
    use = {"const": entry.name, "description": f"{entry.distribution} {entry.version}: {entry.cls.reference}"}
    presets = presets_of(entry)
    if presets:
        more = {**more, "preset": {"enum": sorted(presets)}}
        found.pop("required", None)  # a preset may say it
    for field, kind in getattr(entry.cls, "parts", {}).items():
        found["properties"][field] = _referring(found["properties"][field], kind)
    found["properties"] = {"use": use, **found.get("properties", {}), **more}
    return {key: {**found, "title": f"{entry.kind} {entry.name}"}, **inner}


def _refer(part: Tree) -> None:
    """Let properties that are called like a kind and hold one component, or several, refer to that kind."""
    for name, each in part.get("properties", {}).items():
        if name in KINDS and "$ref" not in each:
            part["properties"][name] = _referring(each, name)


def _referring(old: Tree, kind: str) -> Tree:
    """A property that refers to ``kind`` in all the forms that it had: alone, in a list, or ``null``."""
    forms = list(_types(old))
    listed = [{"type": "array", "items": _reference(kind)}] if "array" in forms else []
    missing = [{"type": "null"}] if "null" in forms else []
    kept = {key: value for key, value in old.items() if key in ("title", "description", "default")}
    return kept | ({"anyOf": [_reference(kind), *listed, *missing]} if listed or missing else _reference(kind))


def _types(part: Tree) -> Iterator[str]:
    for each in (part, *part.get("anyOf", ()), *part.get("oneOf", ())):
        if isinstance(each.get("type"), str):
            yield each["type"]


def _reference(kind: str) -> Tree:
    return {"$ref": f"#/$defs/{kind}"}
