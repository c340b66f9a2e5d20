"""``m2rl plugins``: what is installed, and what a component says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2rl_core.cli.errors import warn
from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from m2rl_core.describe import Description
    from m2rl_core.registry import Entry, Registry

__all__ = ["plugins"]

plugins = typer.Typer(invoke_without_command=True)

Local = Annotated[list[Path] | None, typer.Option("--plugin", metavar="PATH", help="A local plugin; may be repeated.")]


@plugins.callback()
def listed(
    context: typer.Context,
    as_json: AsJson = False,
    check: Annotated[bool, typer.Option("--check", help="Load them, too; exit code 2 if one is broken.")] = False,
) -> None:
    """List the installed plugins, broken ones included."""
    from m2rl_core.plugins import discover, load_plugins

    if context.invoked_subcommand is not None:
        return
    found = load_plugins(strict=False).plugins if check else discover()
    if as_json:
        print_json([asdict(plugin) for plugin in found])
    else:
        from m2rl_core.cli.tables import plugins as table
        from m2rl_core.cli.tables import show

        show(table(found))
        warn(found, waiting=True)
    if check and any(plugin.broken for plugin in found):
        raise typer.Exit(2)


@plugins.command("show")
def shown(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A component, a plugin or a distribution.")],
    as_json: AsJson = False,
    local: Local = None,
) -> None:
    """Show what components say of themselves: settings with types, defaults and meanings, presets, references."""
    from m2rl_core.cli.tables import show
    from m2rl_core.describe import describe
    from m2rl_core.plugins import load_plugins

    registry = load_plugins([path.resolve() for path in local or ()], strict=False)
    found = [describe(entry) for entry in named(registry, name)]
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        show(*(part for each in found for part in _described(each)))


def named(registry: Registry, name: str) -> list[Entry]:
    """The components called ``name``, of whatever kind, or else those of the plugin or distribution called so.

    Raises:
        ComponentError: there are none; says why, and what there is.
    """
    from m2rl_core.errors import ComponentError, nearest

    entries = registry.entries()
    if found := [entry for entry in entries if entry.name == name]:
        return found
    rows = [plugin for plugin in registry.plugins if name in (plugin.name, plugin.distribution, _rest(plugin.name))]
    offered = {component for plugin in rows for component in plugin.components}
    if found := [entry for entry in entries if f"{entry.kind} {entry.name}" in offered]:
        return found
    known = sorted({entry.name for entry in entries})
    causes = " ".join(f"{str(plugin).rstrip('.')}." for plugin in rows)
    raise ComponentError(
        f"there is no component '{name}'.{nearest(name, known)}{f' {causes}' if causes else ''}",
        allowed=known,
        then="m2rl plugins --check",
    )


def _rest(plugin: str) -> str:
    """``math`` of ``domain-math``."""
    return plugin.partition("-")[2]


def _described(found: Description) -> Iterator[Table | Text]:
    """A component as a user reads it."""
    from rich.text import Text

    from m2rl_core.cli.tables import empty

    whose = f"{found.distribution} {found.version}".strip()
    yield Text(f"\n{found.kind} {found.name}", "bold").append(f" of {whose}", "not bold")
    yield Text(f"{found.text}\nReference: {found.reference}")
    if found.settings:
        table = empty("setting", "type", "default", "meaning")
        for setting in found.settings:
            table.add_row(setting.name, Text(setting.type), Text(setting.default), Text(" ".join(setting.text.split())))
        yield table
    if found.presets:
        table = empty("preset", "settings", "meaning")
        for preset in found.presets:
            table.add_row(preset.name, Text(preset.settings), Text(preset.note))
        yield table
