"""What is known of plugins and of the components that they offer."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from m2rl_core.errors import ConfigError, boundary

if TYPE_CHECKING:
    from m2rl_core.interfaces import Component

__all__ = ["KINDS", "Entry", "Kind", "Observer", "Plugin", "Use", "use_of"]

Kind = Literal["domain", "engine", "algorithm", "advantage", "importance", "loss", "mixture", "merger", "analyzer"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Use = str | Mapping[str, Any]
"""A component in a study: its name, or ``{use: NAME, **config}``."""


def use_of(use: Use, owner: str = "use") -> tuple[str, dict[str, Any]]:
    """The name and the configuration in a ``use``.

    Raises:
        ConfigError: ``owner`` names no component.
    """
    if isinstance(use, str):
        return use, {}
    config = dict(use)
    name = config.pop("use", None)
    if not isinstance(name, str):
        raise ConfigError(f"{owner}: needs a component's name, as in '{{use: NAME}}'", found=dict(use))
    return name, config


@dataclass(frozen=True, slots=True)
class Plugin:
    """What is known of one plugin: a row of ``m2rl plugins``."""

    name: str
    """Of the entry point, by convention ``KIND-NAME``, or of the local file."""
    target: str
    """What is imported: ``module`` or ``module:attribute``, or a path."""
    distribution: str
    version: str = ""
    status: Literal["installed", "loaded", "disabled", "waiting", "incompatible", "failed"] = "installed"
    """``installed``: as far as its metadata tells, it will load. ``waiting``: for a package that suits the machine."""
    problem: str = ""
    components: tuple[str, ...] = ()
    """``KIND NAME`` of what it offers; known once it is loaded."""

    @property
    def broken(self) -> bool:
        """True where the plugin should be there and is not."""
        return self.status in {"incompatible", "failed"}

    @property
    def remedy(self) -> str:
        """What to do about a broken plugin; empty where its problem says so already."""
        if not self.broken or "Next: " in self.problem:
            return ""
        why = "bring it to a version that fits" if self.status == "incompatible" else "mend it"
        return f"{why} (pip install --upgrade {self.distribution}), or leave it out: M2RL_DISABLE_PLUGINS={self.name}"

    def __str__(self) -> str:
        state = {"disabled": " is disabled", "incompatible": " does not fit", "failed": " is installed but failed"}
        whose = f"{self.distribution} {self.version}".strip()
        return f"{whose}{state.get(self.status, f' is {self.status}')}" + (f": {self.problem}" if self.problem else "")


@dataclass(frozen=True, slots=True)
class Entry:
    """A component that can be used."""

    kind: Kind
    name: str
    distribution: str
    version: str
    target: type[Component] | str
    """The class, or ``module:Class`` where importing it must wait until it is used."""

    @property
    def cls(self) -> type[Component]:
        """The component's class, imported now if it was not."""
        return (
            cast("type[Component]", pkgutil.resolve_name(self.target)) if isinstance(self.target, str) else self.target
        )

    @property
    def module(self) -> str:
        """Name of the module that defines the class."""
        return self.target.partition(":")[0] if isinstance(self.target, str) else self.target.__module__

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}' of {self.distribution} {self.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Observer:
    """A plugin's ``m2rl_step_end``."""

    distribution: str
    arguments: tuple[str, ...]
    function: Callable[..., object]

    def __call__(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Show a finished step to the plugin.

        Raises:
            StageError: naming the distribution, from whatever the plugin raised.
        """
        given = {"stage": stage, "step": step, "metrics": metrics}
        with boundary(f"{self.distribution}: m2rl_step_end", f"observing step {step} of {stage}"):
            self.function(*(given[name] for name in self.arguments))
