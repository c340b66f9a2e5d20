"""All commands, made from what ``--help`` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from m2rl_core.cli import app
from m2rl_docs.tables import table

__all__ = ["commands", "walk"]

TYPE = re.compile(r" <\w+>$")
"""What typer says of an argument behind its name."""


def walk(command: Any, name: str = "m2rl") -> Iterator[tuple[str, Any]]:
    """Every command of a click group with its full name, groups before what they hold."""
    yield name, command
    for each, inner in sorted(getattr(command, "commands", {}).items()):
        yield from walk(inner, f"{name} {each}")


def commands() -> str:
    """Markdown."""
    found = walk(typer.main.get_command(app))
    return "\n".join(_command(name, command) for name, command in found if name != "m2rl" and not command.hidden)


def _command(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)]).replace("{", "").replace("}", "")
    said = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    records = [each.get_help_record(context) for each in command.get_params(context)]
    rows = [[f"`{TYPE.sub('', names)}`", meaning] for names, meaning in filter(None, records) if names != "--help"]
    shown = table(["argument or option", "meaning"], rows) if rows else ""
    return f"## {name}\n\n```text\n{usage}\n```\n\n{said}\n\n{shown}\n"
