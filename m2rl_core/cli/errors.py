"""What a user sees instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import typer
from typer.core import TyperGroup

from m2rl_core.cli.output import print_json_error
from m2rl_core.errors import M2rlError, RunError

if TYPE_CHECKING:
    from m2rl_core.registry import Plugin

__all__ = ["Group", "warn"]


class Group(TyperGroup):
    """Commands whose expected failures end in one message and an exit code; all others keep their traceback."""

    def invoke(self, ctx: object) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(cast("typer.Context", ctx))
        except (M2rlError, PermissionError) as error:
            told = error if isinstance(error, M2rlError) else _not_allowed(error)
            typer.secho(f"Error: {told}", fg="red", err=True)
            print_json_error(cast("typer.Context", ctx), told)
            raise typer.Exit(told.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("Interrupted. Run the same command again to resume.", err=True)
            raise typer.Exit(130) from None


def _not_allowed(error: PermissionError) -> RunError:
    """Of any file or folder: even whether one is there may not be asked where a folder above it is closed."""
    return RunError(f"{error.filename} cannot be used: {error.strerror}", then="ask for access, or name another path")


def warn(plugins: Iterable[Plugin], *, waiting: bool = False) -> None:
    """One line for each broken plugin, and if ``waiting`` for each that waits."""
    for plugin in plugins:
        if plugin.broken or (waiting and plugin.status == "waiting"):
            advice = f". Next: {plugin.remedy}" if plugin.remedy else ""
            typer.secho(f"Warning: {str(plugin).rstrip('.')}{advice}", fg="yellow", err=True)
