"""``m2rl merge``: experts that are there become one model, without a study."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m2rl_core.cli.completing import component
from m2rl_core.cli.errors import warn
from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from m2rl_core.merge import Diagnostics, Loaded

__all__ = ["merge"]

_SAID = "the recipe says that; change it there"


def merge(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new model's folder.", show_default=False)],
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="A YAML file, of m2rl's or mergekit's form, instead of the options."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="A merger that 'm2rl plugins --check' lists.", autocompletion=component("merger")
        ),
    ] = None,
    base: Annotated[Path | None, typer.Option(metavar="DIR", help="The model that the experts started from.")] = None,
    expert: Annotated[list[str] | None, typer.Option(metavar="NAME=DIR", help="An expert; to be repeated.")] = None,
    evidence: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="What the merger needs of an expert beyond weights; may be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the merger; may be repeated.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2", help="A model for each value, below --out, in one reading; may be repeated."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings of the merger under one name, e.g. paper.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Of the result; by default the base's.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="The result does not depend on it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Merge experts into one model, in little memory; the folder appears when it is whole, or not at all."""
    models = {"--base": base, "--expert": expert, "--evidence": evidence}
    said_of_merger = {"--method": method, "--set": settings, "--sweep": sweep, "--preset": preset}
    options = {**said_of_merger, **models, "--dtype": dtype}
    if recipe is not None:
        if said := [name for name, value in options.items() if value]:
            raise typer.BadParameter(_SAID, param_hint=said[0])
        loaded = _read(recipe)
    else:
        if method is None or not expert:
            missing = "--expert" if method else "--method"
            raise typer.BadParameter("is needed, or a RECIPE", param_hint=missing)
        loaded = _from_options(
            _merger(method, preset, settings or ()), base, expert, evidence or (), dtype, _values(sweep or ())
        )
    _mention_leftovers(out)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job, too, leaves nothing behind
    try:
        found = _merged(loaded, out, threads, as_json)
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing was left behind.", err=True)
        raise typer.Exit(130) from None
    folders = sorted(out.iterdir()) if loaded.recipe.sweep else [out]
    if as_json:
        told = {"experts": found.experts, "metrics": found.metrics, "fingerprints": found.fingerprints}
        print_json({"folders": folders, **told, "warnings": found.warnings})
        return
    _show(found)
    for folder in folders:
        typer.echo(f"Done: {folder}")


def _mention_leftovers(out: Path) -> None:
    """A merge that was killed outright could not clean up; whether another is at work there cannot be told."""
    from m2rl_core.files import left_over

    for path in left_over(out):
        note = f"Note: {path} is what a merge that was killed has left; remove it, unless one is still at work there"
        typer.secho(note, fg="yellow", err=True)


def _read(file: Path) -> Loaded:
    from m2rl_core.merge import load_recipe

    loaded = load_recipe(file)
    for note in loaded.notes:
        typer.secho(f"Note: {note}", fg="yellow", err=True)
    return loaded


def _merger(method: str, preset: str | None, settings: Sequence[str]) -> dict[str, Any]:
    from m2rl_core.config import settings as read

    return {"use": method, **({"preset": preset} if preset else {}), **read(settings)}


def _from_options(
    merger: dict[str, Any],
    base: Path | None,
    experts: Sequence[str],
    evidence: Sequence[str],
    dtype: Any,
    sweep: dict[str, Any],
) -> Loaded:
    from m2rl_core.merge import Loaded, Recipe

    recipe = Recipe(
        merger=merger,
        base=None if base is None else _absolute(base),
        experts=_named("--expert", experts),
        evidence=_named("--evidence", evidence),
        dtype=dtype,
        sweep=sweep,
    )
    return Loaded(recipe, lambda keys: f"--method {merger['use']}")


def _values(texts: Sequence[str]) -> dict[str, Any]:
    """Setting → values, by ``KEY=V1,V2`` each."""
    import yaml

    found: dict[str, Any] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise typer.BadParameter(f"'{text}' should read KEY=V1,V2", param_hint="--sweep")
        try:
            found[name] = yaml.safe_load(f"[{values}]")
        except (yaml.YAMLError, RecursionError):
            raise typer.BadParameter(f"the values of '{text}' cannot be read", param_hint="--sweep") from None
    return found


def _named(option: str, texts: Sequence[str]) -> dict[str, str]:
    """The folders that an option names, by ``NAME=DIR`` each."""
    folders: dict[str, str] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise typer.BadParameter(f"'{text}' should read NAME=DIR", param_hint=option)
        if name in folders:
            raise typer.BadParameter(f"'{name}' is there twice", param_hint=option)
        folders[name] = _absolute(Path(folder))
    return folders


def _absolute(folder: Path) -> str:
    """So that the recipe on the card means the same from anywhere; no shell knows ``~`` behind ``NAME=``."""
    return str(folder.expanduser().absolute())


def _merged(loaded: Loaded, out: Path, threads: int | None, as_json: bool) -> Diagnostics:
    from rich.console import Console

    from m2rl_core import api
    from m2rl_core.cli.bytes import reading
    from m2rl_core.plugins import load_plugins

    registry = load_plugins()
    warn(registry.plugins)
    with reading(Console(stderr=as_json), "merging") as report:
        return api.merge(loaded, out, threads=threads, report=report, registry=registry)


# ── what was found ───────────────────────────────────────────────────────────────────────────────────────────────────


def _show(found: Diagnostics) -> None:
    from m2rl_core.cli.tables import show

    show(_table(found))
    if (conflict := found.metrics.get("sign_conflict")) is not None:
        typer.echo(f"Weights that some experts raise and others lower: {conflict:.1%}")
    for line in found.warnings:
        typer.secho(f"Warning: {line}", fg="yellow", err=True)


def _table(found: Diagnostics) -> Table:
    """One row per expert: where it lies, and what the merger itself tells of it."""
    from m2rl_core.cli.tables import empty

    names = list(found.experts)
    columns = _measures(found) | {
        what: [f"{found.own[f'{what}/{name}']:.4g}" for name in names]
        for what in dict.fromkeys(key.partition("/")[0] for key in found.own)
        if all(f"{what}/{name}" in found.own for name in names)
    }
    table = empty("expert", numbers=list(columns))
    for name, *cells in zip(names, *columns.values(), strict=True):
        table.add_row(name, *cells)
    return table


def _measures(found: Diagnostics) -> dict[str, list[str]]:
    """Heading → a cell per expert, of what is known of any merge."""
    metrics, names = found.metrics, list(found.experts)
    lengths = [f"{metrics[f'norm/{name}']:.4g}" for name in names]
    if found.survey.base is None:
        return {"distance from their mean": lengths}
    shares = {
        "of the base's": [f"{metrics[f'relative/{name}']:.3%}" for name in names],
        "changed": [f"{metrics[f'changed/{name}']:.1%}" for name in names],
    }
    cosines_EE = zip(names, found.survey.cosines_EE, strict=True)
    cosines = {
        f"cosine with {name}": [f"{round(cosine, 3) + 0.0:.3f}" for cosine in row_E] for name, row_E in cosines_EE
    }
    return {"length": lengths, **shares, **cosines}
