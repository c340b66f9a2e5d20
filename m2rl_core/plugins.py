"""Finding plugins and loading them so that a broken one harms nobody who does not use it.

A plugin is a distribution with an entry point in the group ``m2rl``, or a local file or folder that a study lists; a
local one may be a mere reward function (:mod:`m2rl_core.rewards.functions`). A plugin that cannot be loaded stays in
:attr:`Registry.plugins` with its problem; it becomes an error when a study uses what it should have offered.
``pluggy.load_setuptools_entrypoints`` does not do: one plugin that raises would take the command line down.

A distribution that offers the extras ``cpu`` and ``cuda`` needs the packages of one of them, which of the two depends
on the machine. Without either its plugin waits: that is no defect, but it cannot be used.

Environment: ``M2RL_DISABLE_PLUGINS=a,b`` leaves out entry points or distributions; ``M2RL_STRICT_PLUGINS=1`` makes any
broken plugin an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pluggy
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import m2rl_core
import m2rl_core.registry
from m2rl_core.errors import ComponentError, M2rlError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.registry import Entry, Kind, Observer, Plugin, Registry, use_of

__all__ = ["Entry", "Kind", "Observer", "Plugin", "Registry", "discover", "load_plugins", "use_of"]

CORE = "m2rl-core"
GROUP = "m2rl"
CHOICE = ("cuda", "cpu")
"""Extras of which a distribution needs one."""
_MACHINERY = (
    "<frozen",
    __file__,
    *(str(Path(package.__file__ or "").parent) for package in (importlib, pluggy, m2rl_core.registry)),
)
_OWN: tuple[tuple[Kind, str, str], ...] = (
    ("engine", "embedded", "m2rl_core.engine.embedded:EmbeddedEngine"),
    ("analyzer", "interference", "m2rl_core.interference:Interference"),
    ("mixture", "fixed", "m2rl_core.rollout.shares:Fixed"),
    ("mixture", "proportional", "m2rl_core.rollout.shares:Proportional"),
    ("mixture", "worst-task", "m2rl_core.rollout.shares:WorstTask"),
)


def discover() -> list[Plugin]:
    """The core's own components and all installed plugins, sorted by name, from metadata alone: nothing is imported."""
    return [*_own(), *(plugin for plugin, _ in _installed())]


def load_plugins(local: Sequence[str | Path] = (), *, strict: bool | None = None) -> Registry:
    """A registry of the core's own components, of all installed plugins and of ``local`` files and folders.

    Args:
        strict: whether a broken plugin is an error; ``None``: where ``M2RL_STRICT_PLUGINS=1``.

    Raises:
        ComponentError: a local plugin that does not load, since the study asks for it; any broken plugin if ``strict``.
    """
    registry = Registry()
    for kind, name, target in _OWN:
        registry.add(Entry(kind, name, CORE, m2rl_core.__version__, target))
    registry.plugins += _own()
    for plugin, entry_point in _installed():
        loaded = plugin if plugin.status != "installed" else _load(registry, plugin, entry_point.load)
        registry.plugins.append(loaded)
    for path in local:
        registry.plugins.append(_load_local(registry, Path(path)))
    strict = os.environ.get("M2RL_STRICT_PLUGINS") == "1" if strict is None else strict
    broken = [str(plugin) for plugin in registry.plugins if plugin.broken]
    if broken and strict:
        raise ComponentError("Broken plugins are refused by M2RL_STRICT_PLUGINS=1:\n" + "\n".join(broken))
    return registry


def _own() -> list[Plugin]:
    return [
        Plugin(f"{kind}-{name}", target, CORE, m2rl_core.__version__, "loaded", components=(f"{kind} {name}",))
        for kind, name, target in _OWN
    ]


def _installed() -> list[tuple[Plugin, EntryPoint]]:
    """Entry points in a fixed order: the order in which metadata is found differs between machines."""
    ordered = sorted(entry_points(group=GROUP), key=lambda each: (each.name, each.value))
    return [(_described(entry_point), entry_point) for entry_point in ordered]


def _described(entry_point: EntryPoint) -> Plugin:
    """What the metadata says of a plugin; a half-removed distribution may have none."""
    plugin = Plugin(entry_point.name, entry_point.value, "unknown distribution")
    try:
        if (dist := entry_point.dist) is None or not dist.metadata.get_all("Name"):
            raise LookupError("it does not say whose it is")
        plugin = dataclasses.replace(plugin, distribution=dist.metadata["Name"], version=dist.metadata["Version"])
        if {plugin.name, canonicalize_name(plugin.distribution)} & _disabled():
            return dataclasses.replace(plugin, status="disabled", problem="named in M2RL_DISABLE_PLUGINS")
        if problem := _misfit(dist.requires or ()):
            return dataclasses.replace(plugin, status="incompatible", problem=problem)
        if problem := _wants(plugin.distribution, list(map(Requirement, dist.requires or ()))):
            return dataclasses.replace(plugin, status="waiting", problem=problem)
    except Exception as error:
        return dataclasses.replace(plugin, status="failed", problem=f"its metadata cannot be read: {_cause(error)}")
    return plugin


def _disabled() -> set[str]:
    names = os.environ.get("M2RL_DISABLE_PLUGINS", "").split(",")
    return {form for name in names if name.strip() for form in (name.strip(), canonicalize_name(name.strip()))}


def _misfit(requires: Iterable[str]) -> str:
    """Why a distribution's requirements exclude the running core, or nothing.

    Raises:
        InvalidRequirement: one that cannot be read.
    """
    for requirement in map(Requirement, requires):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonicalize_name(requirement.name) == CORE and applies:
            version = m2rl_core.__version__
            if not requirement.specifier.contains(version, prereleases=True):
                return f"it requires {CORE} {requirement.specifier}, but {version} is running"
    return ""


def _wants(distribution: str, requirements: Sequence[Requirement]) -> str:
    """What to install so that one of the extras in :data:`CHOICE` is complete, or nothing if one is, or none exists."""
    extras = {extra: [each for each in requirements if _belongs(each, extra)] for extra in CHOICE}
    if not all(extras.values()) or any(all(map(_is_installed, each)) for each in extras.values()):
        return ""
    commands = [
        f"{' and '.join(str(each.name) for each in needed)} (pip install '{distribution}[{extra}]')"
        for extra, needed in extras.items()
    ]
    return "it needs " + " or ".join(commands)


def _belongs(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement is an extra's and of nobody else."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _load(registry: Registry, plugin: Plugin, load: Callable[[], object]) -> Plugin:
    """``plugin`` as it is after an attempt to load it. Nothing that its code raises passes, SystemExit included."""
    try:
        entries = registry.register(load(), distribution=plugin.distribution, version=plugin.version)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return dataclasses.replace(plugin, status="failed", problem=_cause(error))
    components = tuple(f"{entry.kind} {entry.name}" for entry in entries)
    return dataclasses.replace(plugin, status="loaded", components=components)


def _load_local(registry: Registry, path: Path) -> Plugin:
    plugin = _load(registry, Plugin(path.stem, str(path), str(path)), lambda: _offer(path))
    if plugin.broken:
        raise ComponentError(f"plugins: {path} did not load: {plugin.problem}")
    return plugin


def _offer(path: Path) -> object:
    """The module with its hooks, or what stands for it where it has a reward function instead."""
    from m2rl_core.rewards.functions import reward_domain  # pydantic need not be there to list plugins
    from m2rl_core.rewards.trl import trl_domain

    module = _import(path)
    made = trl_domain(module, path) or reward_domain(module, path)
    return module if made is None else SimpleNamespace(m2rl_domains=hookimpl(lambda: [made]))


def _import(path: Path) -> ModuleType:
    """The module in a file, or the package in a folder with ``__init__.py``, under a name that shadows no other."""
    path = path.resolve()
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}")
    digest = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    stem = re.sub(r"\W", "_", path.stem)
    name = f"m2rl_local_{stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _cause(error: BaseException) -> str:
    """One line: type, message, and the plugin's own line that led there."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "its message cannot be shown"
    if isinstance(error, M2rlError):
        return text
    frames = (f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_MACHINERY))
    where = next((f" ({'/'.join(Path(f.filename).parts[-2:])}:{f.lineno})" for f in frames), "")
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
