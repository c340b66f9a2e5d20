"""``m2rl doctor``: what this machine has of what m2rl needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from m2rl_core.types import Diagnosis

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "note": "yellow", "broken": "bold red"}


def doctor(
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where studies keep what they made.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """Try what m2rl needs of this machine, sandboxes included: exit code 1 where something is broken."""
    from dataclasses import asdict

    from m2rl_core.doctor import examine, is_broken

    found = examine(runs)
    if as_json:
        rows = {section: [asdict(row) for row in rows] for section, rows in found.items()}
        print_json({"broken": is_broken(found), **rows})
    else:
        _show(found)
    if is_broken(found):
        raise typer.Exit(1)


def _show(found: Mapping[str, Sequence[Diagnosis]]) -> None:
    from m2rl_core.cli.tables import show

    show(_table(found))
    count = sum(row.health == "broken" for rows in found.values() for row in rows)
    typer.echo(f"{count} broken: see the lines that begin with →" if count else "Nothing is broken.")


def _table(found: Mapping[str, Sequence[Diagnosis]]) -> Table:
    from rich.text import Text

    from m2rl_core.cli.tables import empty

    table = empty("", "what", "state", "found")
    for section, rows in found.items():
        for number, row in enumerate(rows):
            text = f"{row.found}\n→ {row.then}" if row.then else row.found
            cells = (Text("" if number else section, "bold"), Text(row.what), Text(row.health, _COLOURS[row.health]))
            table.add_row(*cells, Text(text), end_section=row is rows[-1])
    return table
