"""Options that several commands have, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2rl_core.cli import completing
from m2rl_core.cli.errors import warn
from m2rl_core.types import Reasoning

if TYPE_CHECKING:
    from m2rl_core.registry import Registry

__all__ = ["DomainName", "GateOfAll", "Local", "Settings", "installed"]

DomainName = Annotated[
    str,
    typer.Argument(
        metavar="DOMAIN",
        help="A domain that 'm2rl plugins --check' lists.",
        autocompletion=completing.component("domain"),
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="A setting of the domain; may be repeated."),
]
Local = Annotated[list[Path] | None, typer.Option("--plugin", metavar="PATH", help="A local plugin; may be repeated.")]
GateOfAll = Annotated[
    Reasoning | None,
    typer.Option(
        "--reasoning", help="Format gate of all rows; by default 'required' where metadata.reasoning is 'think'."
    ),
]


def installed(local: Sequence[Path]) -> Registry:
    """The installed plugins and local ones; those that are broken are told of."""
    from m2rl_core.plugins import load_plugins

    registry = load_plugins([str(path.resolve()) for path in local])
    warn(registry.plugins)
    return registry
