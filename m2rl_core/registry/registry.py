"""The registry: filled by hooks, asked by name."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import pluggy

from m2rl_core import hookspecs
from m2rl_core.errors import ComponentError, ConfigError, boundary, nearest
from m2rl_core.registry.entries import KINDS, Entry, Kind, Observer, Plugin, Use, use_of
from m2rl_core.registry.parts import parts_of, presets_of, settings_of

if TYPE_CHECKING:
    from m2rl_core import interfaces
    from m2rl_core.interfaces import Component, ComponentConfig

__all__ = ["Registry"]

_PLURAL: Mapping[Kind, str] = {kind: "losses" if kind == "loss" else f"{kind}s" for kind in KINDS}
_HOOKS: Mapping[str, Kind] = {f"m2rl_{plural}": kind for kind, plural in _PLURAL.items()}


class Registry:
    """Components by kind and name. A new one is empty; :func:`m2rl_core.plugins.load_plugins` returns a full one."""

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        """All plugins that were found, the broken ones too."""
        self.observers: list[Observer] = []
        self._entries: dict[tuple[Kind, str], Entry] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    # ── filling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, entry: Entry) -> None:
        """Offer a component.

        Raises:
            ComponentError: another distribution offers the same name.
        """
        self._refuse_duplicates([entry])
        self._entries[entry.kind, entry.name] = entry

    def register(self, plugin: object, *, distribution: str, version: str = "") -> tuple[Entry, ...]:
        """Offer what the hooks of ``plugin``, a module or an object, return; all of it or, after an error, nothing.

        Raises:
            ComponentError: an unknown hook, a hook without ``@hookimpl``, a component of the wrong shape, or a
                component's name that another distribution has taken.
            Exception: whatever the plugin's own code raises.
        """
        try:
            self._manager.register(plugin)
            hooks = list(self._hooks(plugin))
            entries = tuple(
                _entry(item, hook.name, distribution, version)
                for hook, impl in hooks
                if hook.name in _HOOKS
                for item in cast("Iterable[object]", impl.function())
            )
            self._refuse_duplicates(entries)
        except BaseException:
            # pluggy 1.6 leaves a plugin that fails in `register` half registered
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        self._entries.update({(entry.kind, entry.name): entry for entry in entries})
        self.observers += [
            Observer(distribution, impl.argnames, impl.function) for hook, impl in hooks if hook.name not in _HOOKS
        ]
        return entries

    def _hooks(self, plugin: object) -> Iterator[tuple[pluggy.HookCaller, pluggy.HookImpl]]:
        """The plugin's implementations, each with its hook."""
        hooks = self._manager.get_hookcallers(plugin) or []
        specified = [name for name in hookspecs.__all__ if name.startswith("m2rl_")]
        for hook in hooks:
            if not hook.has_spec():
                raise ComponentError(f"{hook.name} is no hook.{nearest(hook.name, specified)}", allowed=specified)
        for name, member in inspect.getmembers(plugin, inspect.isroutine):
            own = getattr(member, "__module__", None) == getattr(plugin, "__name__", type(plugin).__module__)
            if name.startswith("m2rl_") and own and name not in {hook.name for hook in hooks}:
                raise ComponentError(f"{name} is not marked with @hookimpl")
        for hook in hooks:
            yield from ((hook, impl) for impl in hook.get_hookimpls() if impl.plugin is plugin)

    def _refuse_duplicates(self, entries: Sequence[Entry]) -> None:
        taken = dict(self._entries)
        for entry in entries:
            first = taken.setdefault((entry.kind, entry.name), entry)
            if first is not entry:
                local = not entry.version  # a file, which cannot be disabled
                then = f"disable one of the two, e.g. M2RL_DISABLE_PLUGINS={(first if local else entry).distribution}"
                raise ComponentError(
                    f"{entry} is refused, because there is already the {first}",
                    then=f"rename the file, or {then}" if local else then,
                )

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def names(self, kind: Kind) -> list[str]:
        """Names of the components of a kind, sorted."""
        return sorted(name for each, name in self._entries if each == kind)

    def entries(self) -> list[Entry]:
        """All components, in the order of their kinds and names."""
        return sorted(self._entries.values(), key=lambda entry: (KINDS.index(entry.kind), entry.name))

    def lookup(self, kind: Kind, name: str, owner: str = "") -> Entry:
        """The component called ``name``.

        Raises:
            ComponentError: no plugin offers it, or its plugin is broken; names ``owner``, the cause and what there is.
        """
        if entry := self._entries.get((kind, name)):
            return entry
        known = self.names(kind)
        gone = [p for p in self.plugins if p.broken or p.status in {"disabled", "waiting"}]
        # of several that are gone, the one whose name says that it is this component's; else any might have offered it
        own = [p for p in gone if p.name.replace("_", "-") == f"{kind}-{name}".replace("_", "-")]
        gone = own or [p for p in gone if p.status != "waiting"]
        lines = [f"{kind} '{name}' is not available.{nearest(name, known)}"]
        lines += [str(plugin).rstrip(".") + "." for plugin in gone]
        lines += [f"{_PLURAL[kind].capitalize()} available: {', '.join(known) or 'none'}."]
        raise ComponentError((f"{owner}: " if owner else "") + " ".join(lines), then="m2rl plugins --check")

    def configure(self, kind: Kind, use: Use, owner: str, *, also: Sequence[str] = ()) -> ComponentConfig:
        """The validated configuration of a component that is not built yet; its parts have all their settings, too.

        Args:
            use: a name, or ``{use: NAME, **config}``; over the settings that ``preset: NAME`` stands for, other keys
                prevail.
            owner: dotted path of ``use`` in the study, for messages.
            also: keys that ``owner`` accepts beside the component's own, for suggestions.

        Raises:
            ComponentError: as :meth:`lookup`.
            ConfigError: an unknown preset, or one line for each key that the component's ``Config`` refuses.
        """
        return self._configured(kind, use, owner, also)[1]

    def _configured(self, kind: Kind, use: Use, owner: str, also: Sequence[str]) -> tuple[Entry, ComponentConfig]:
        from pydantic import ValidationError

        from m2rl_core.validation import problems

        name, config = use_of(use, owner)
        entry = self.lookup(kind, name, owner)
        preset = config.pop("preset", None) if hasattr(entry.cls, "presets") else None
        config = {**settings_of(entry, preset, owner), **config}
        also = [*also, "preset"] if presets_of(entry) else also
        model = cast("type[ComponentConfig]", entry.cls.Config)
        try:
            validated = model.model_validate(config)
        except ValidationError as error:
            found = problems(error, model, config, owner=owner, also=also)
            raise ConfigError("\n".join(map(str, found))) from None
        parts = {
            field: self._resolved(each, use, f"{owner}.{field}", preset)
            for field, (each, use) in parts_of(entry, validated).items()
        }
        return entry, validated.model_copy(update=parts)

    def _resolved(self, kind: Kind, use: Use, owner: str, preset: str | None) -> dict[str, Any]:
        """A part with all its settings, so that a stage's key and a record of it hold them.

        A preset of its owner holds for a part, too, that has one of this name and was given none.
        """
        name, config = use_of(use, owner)
        if preset in presets_of(self.lookup(kind, name, owner)):
            config = {"preset": preset, **config}
        return {"use": name, **self.configure(kind, {"use": name, **config}, owner).model_dump(mode="json")}

    # fmt: off
    @overload
    def create(self, kind: Literal["domain"], use: Use, owner: str) -> interfaces.Domain: ...
    @overload
    def create(self, kind: Literal["engine"], use: Use, owner: str) -> interfaces.Engine: ...
    @overload
    def create(self, kind: Literal["algorithm"], use: Use, owner: str) -> interfaces.Algorithm: ...
    @overload
    def create(self, kind: Literal["advantage"], use: Use, owner: str) -> interfaces.Advantage: ...
    @overload
    def create(self, kind: Literal["importance"], use: Use, owner: str) -> interfaces.Importance: ...
    @overload
    def create(self, kind: Literal["loss"], use: Use, owner: str) -> interfaces.Loss: ...
    @overload
    def create(self, kind: Literal["mixture"], use: Use, owner: str) -> interfaces.Mixture: ...
    @overload
    def create(self, kind: Literal["merger"], use: Use, owner: str) -> interfaces.Merger: ...
    @overload
    def create(self, kind: Literal["analyzer"], use: Use, owner: str) -> interfaces.Analyzer: ...
    # fmt: on

    def create(self, kind: Kind, use: Use, owner: str) -> Component:
        """Build a component from what a study says of it; arguments and errors as for :meth:`configure`.

        Raises:
            StageError: the component's own constructor failed.
        """
        entry, config = self._configured(kind, use, owner, ())
        parts = {
            field: self.create(each, part, f"{owner}.{field}")
            for field, (each, part) in parts_of(entry, config).items()
        }
        build = cast("Callable[..., Component]", entry.cls)
        with boundary(f"{owner}: {entry}", "being built"):
            return build(config, **parts)

    def content_hash(self, kind: Kind, name: str) -> str:
        """SHA-256 [hex] over the files of the component's code: names and contents, in sorted order.

        The code is the top-level package or module that defines the class, whatever the version number says; for the
        core's own components it is their package within the core.

        Raises:
            ComponentError: as :meth:`lookup`.
        """
        root = _code(self.lookup(kind, name).module)
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        total = hashlib.sha256()
        for path in files:
            relative = path.relative_to(root.parent)
            if not any(part == "__pycache__" or part.startswith(".") for part in relative.parts):
                content = path.read_bytes()
                total.update(f"{relative.as_posix()}\0{len(content)}\0".encode() + content)
        return total.hexdigest()


def _entry(item: object, hook: str, distribution: str, version: str) -> Entry:
    """``item`` as a component, if it has the shape of one."""
    from m2rl_core.interfaces import ComponentConfig

    config, name = getattr(item, "Config", None), getattr(item, "name", None)
    if not isinstance(item, type):
        raise ComponentError(f"{hook} must return component classes", found=repr(item))
    if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name)):
        raise ComponentError(
            f"{item.__name__} needs a class attribute 'name' of a-z, 0-9, '.', '_' and '-'", found=name
        )
    if not (isinstance(config, type) and issubclass(config, ComponentConfig)):
        raise ComponentError(f"{item.__name__} needs a class attribute 'Config', a ComponentConfig", found=config)
    if not isinstance(getattr(item, "reference", None), str):
        raise ComponentError(f"{item.__name__} needs a class attribute 'reference': where is it defined?")
    return Entry(_HOOKS[hook], name, distribution, version, cast("type[Component]", item))


def _code(module: str) -> Path:
    """The folder or file that holds the code around ``module``."""
    parts = module.split(".")
    for name in (".".join(parts[: 2 if parts[0] == "m2rl_core" else 1]), module):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            return origin.parent if origin.name == "__init__.py" else origin
    raise ComponentError(f"module {module} has no file")
