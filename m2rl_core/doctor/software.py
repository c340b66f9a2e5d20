"""Versions against what the distributions' own metadata asks for, plugins, and what components say of themselves."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import m2rl_core
from m2rl_core.errors import M2rlError
from m2rl_core.registry import KINDS, Plugin, Registry
from m2rl_core.types import Diagnosis

__all__ = ["components", "plugins", "versions"]

CORE = "m2rl-core"
SHOWN = ("torch", "transformers")
"""Requirements of the core that are shown although nothing is wrong with them."""
OPTIONAL = {
    "triton": "kernels for CUDA devices; without it torch's own operations are used",
    "vllm": "a fast engine for GPUs",
}
"""What is used where it is there, and for what."""
ALL = "paper"
"""Extra of the core with every plugin of this repository and, by way of the other extras, all that is optional."""


def versions(plugins: Iterable[Plugin]) -> Iterator[Diagnosis]:
    """Python, the core and what it requires, optional packages, and extras that are incomplete."""
    asked = SpecifierSet(", ".join(metadata(CORE).get_all("Requires-Python") or ()))
    python = platform.python_version()
    yield Diagnosis("python", "ok" if python in asked else "broken", _outside(python, asked))
    yield Diagnosis(CORE, "ok", m2rl_core.__version__)
    wanted = [Requirement(text) for text in requires(CORE) or ()]
    for each in wanted:
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            row = _required(each)
            if each.name in SHOWN or row.health != "ok":
                yield row
    waiting = [plugin.problem for plugin in plugins if plugin.status == "waiting"]
    for name, use in OPTIONAL.items():
        found = _installed(name) or _installed(f"{name}-cpu")
        then = next((problem for problem in waiting if name in problem), "")
        yield Diagnosis(name, "ok", found) if found else Diagnosis(name, "note", f"not installed: {use}", then)
    yield from _extras(wanted)


def _extras(wanted: Iterable[Requirement]) -> Iterator[Diagnosis]:
    """One row per extra for users that is incomplete."""
    missing: dict[str, list[str]] = {}
    for each in wanted:
        for extra in metadata(CORE).get_all("Provides-Extra") or ():
            own = each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""})
            if own and extra != "dev" and not each.extras and not _installed(each.name):
                missing.setdefault(extra, []).append(each.name)
    for extra, names in missing.items():
        then = f"pip install '{CORE}[{extra}]'"
        yield Diagnosis(f"extra '{extra}'", "note", f"not installed: {_some(names)}", then)


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first of many names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _required(requirement: Requirement) -> Diagnosis:
    found = _installed(requirement.name)
    then = f"pip install '{requirement.name}{requirement.specifier}'"
    if not found:
        return Diagnosis(requirement.name, "broken", "not installed", then)
    if requirement.specifier.contains(found, prereleases=True):
        return Diagnosis(requirement.name, "ok", found)
    return Diagnosis(requirement.name, "broken", _outside(found, requirement.specifier), then)


def _outside(found: str, asked: SpecifierSet) -> str:
    return found if asked.contains(found, prereleases=True) else f"{found}, but {asked} is required"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def plugins(found: Iterable[Plugin]) -> Iterator[Diagnosis]:
    """One row for the components of each kind with their versions, and one for each plugin that is not loaded."""
    offers: Mapping[str, list[str]] = {kind: [] for kind in KINDS}
    found = list(found)
    for plugin in found:
        for component in plugin.components:
            kind, name = component.split(" ", 1)
            offers[kind].append(f"{name} {plugin.version}".strip())
    for kind, names in offers.items():
        yield Diagnosis(kind, "ok" if names else "note", ", ".join(sorted(names)) or "none installed")
    for plugin in found:
        if plugin.broken:
            then = f"pip install --upgrade {plugin.distribution}, or M2RL_DISABLE_PLUGINS={plugin.name}"
            yield Diagnosis(plugin.name, "broken", str(plugin), then)
        elif plugin.status != "loaded":
            yield Diagnosis(plugin.name, "note", str(plugin))


def components(registry: Registry) -> Iterator[Diagnosis]:
    """What each component finds where it tries what it needs of the machine; most need nothing."""
    for kind in KINDS:
        for name in registry.names(kind):
            owner = f"{kind} {name}"
            try:
                cls = registry.lookup(kind, name).cls
                rows: list[Diagnosis] = list(getattr(cls, "diagnose", tuple)())
            except Exception as error:
                text = str(error) if isinstance(error, M2rlError) else f"{type(error).__name__}: {error}"
                rows = [Diagnosis("", "broken", f"its own check failed: {text}")]
            for row in rows:
                yield Diagnosis(f"{owner}: {row.what}".removesuffix(": "), row.health, row.found, row.then)
