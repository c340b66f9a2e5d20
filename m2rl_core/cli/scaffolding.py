"""``m2rl new``: a plugin or a study to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from m2rl_core.cli.output import AsJson, print_json

__all__ = ["new"]


def new(
    kind: Annotated[
        Literal["domain", "algorithm", "merger", "analyzer", "study"],
        typer.Argument(metavar="KIND", show_default=False),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to put it.")] = Path(),
    like: Annotated[str, typer.Option(metavar="STUDY", help="The study to copy.")] = "miniature",
    as_json: AsJson = False,
) -> None:
    """Write a plugin that works and is tested, or a copy of a study, to be made into your own.

    KIND is domain, algorithm, merger, analyzer or study.
    """
    from m2rl_core.scaffold import new_plugin, new_study

    if kind == "study":
        files = [new_study(name, like, out)]
        then = f"m2rl check {files[0]}"
    else:
        files = new_plugin(kind, name, out)
        folder = files[0].parent
        then = f"pip install -e {folder} pytest && python -m pytest {folder}, then say '{name}' in a study"
    if as_json:
        print_json({"kind": kind, "name": name, "files": files})
    else:
        typer.echo("\n".join([*map(str, files), f"Next: {then}"]))
