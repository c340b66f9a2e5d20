"""``m2rl eval``: one model on suites, without a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2rl_core.cli.options import Local, installed
from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder.", show_default=False)],
    suite: Annotated[
        list[str],
        typer.Option(
            metavar="DOMAIN[:SUITE[:K]]",
            help="A suite with its samples per prompt, or all of a domain; to be repeated.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where samples and scores go.", show_default=False)],
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first prompts of each suite.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.KEY=VALUE", help="As of a study: domains.math.aime24=DIR, engine.use=vllm."),
    ] = None,
    local: Local = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on suites, Avg@k; interrupted, the same command goes on where it was."""
    from rich.console import Console

    from m2rl_core import api
    from m2rl_core.cli.tables import show
    from m2rl_core.config import settings as read
    from m2rl_core.progress import open_progress

    plugins = local or ()
    with open_progress(Console(stderr=as_json)) as progress:
        found = api.evaluate(
            model, suite, out, limit=limit, changes=read(settings or ()), plugins=plugins, progress=progress,
            registry=installed(plugins),
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    show(_table(found))
    typer.echo(f"Done: {out}")


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    from m2rl_core.cli.tables import empty

    table = empty(
        "suite", "domain", numbers=["score", "interval", "k", "prompts", "failed", "truncated", "mean tokens"]
    )
    for each in found:
        score, *interval = ("" if value is None else f"{value:.1f}" for value in (each["score"], *each["interval"]))
        counts = [str(each[name]) for name in ("k", "prompts", "failed", "truncated")]
        table.add_row(
            each["suite"], each["domain"], score, " to ".join(interval), *counts, f"{each['mean_tokens']:.1f}"
        )
    return table
