"""Does this machine have what m2rl needs? Found out by trying it, in sections of :class:`~m2rl_core.types.Diagnosis`.

:mod:`.machine` looks at cores, memory, disks and devices, :mod:`.software` at versions and plugins; what a component
needs beyond packages, a sandbox for instance, the component itself tries (``diagnose``, see
:class:`~m2rl_core.interfaces.Component`). Nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from m2rl_core.doctor.machine import cores_and_memory, devices, disks
from m2rl_core.doctor.software import components, plugins, versions
from m2rl_core.plugins import load_plugins
from m2rl_core.types import Diagnosis

__all__ = ["examine", "is_broken"]


def examine(runs: Path = Path("runs")) -> dict[str, list[Diagnosis]]:
    """Section → what was tried and found there; what raises is a row, not an end.

    Args:
        runs: where studies keep what they made; need not exist.
    """
    registry = load_plugins(strict=False)
    return {
        "machine": [*cores_and_memory(), *disks(runs)],
        "versions": list(versions(registry.plugins)),
        "devices": list(devices()),
        "plugins": list(plugins(registry.plugins)),
        "components": list(components(registry)),
    }


def is_broken(found: Mapping[str, Sequence[Diagnosis]]) -> bool:
    """Whether anything that should work does not."""
    return any(row.health == "broken" for rows in found.values() for row in rows)
