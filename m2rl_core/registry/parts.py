"""What a component's class says of itself beside its ``Config``: presets, and settings that name other components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from m2rl_core.errors import ConfigError, nearest
from m2rl_core.registry.entries import Entry, Kind, Use

if TYPE_CHECKING:
    from m2rl_core.interfaces import ComponentConfig, Preset

__all__ = ["parts_of", "presets_of", "settings_of"]


def presets_of(entry: Entry) -> Mapping[str, Preset]:
    """The presets of a component by name; none for kinds that know no presets."""
    return cast("Mapping[str, Preset]", getattr(entry.cls, "presets", {}))


def parts_of(entry: Entry, config: ComponentConfig) -> dict[str, tuple[Kind, Use]]:
    """Settings of a component that name others → their kind, and what is said of them."""
    kinds = cast("Mapping[str, Kind]", getattr(entry.cls, "parts", {}))
    return {field: (kind, use) for field, kind in kinds.items() if (use := getattr(config, field)) is not None}


def settings_of(entry: Entry, preset: object, owner: str) -> Mapping[str, Any]:
    """The settings behind the name of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if preset is None:
        return {}
    presets = presets_of(entry)
    if not isinstance(preset, str) or preset not in presets:
        raise ConfigError(
            f"{owner}.preset: {entry.kind} '{entry.name}' has no such preset.{nearest(str(preset), presets)}",
            found=repr(preset),
            allowed=sorted(presets) or "none",
        )
    return presets[preset].settings
