"""``m2rl analyze``: one analyzer by itself, over folders of models or over what a study has made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2rl_core.cli.completing import component
from m2rl_core.cli.errors import warn
from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from m2rl_core.config import Study
    from m2rl_core.registry import Registry
    from m2rl_core.run import NodeView

__all__ = ["analyze"]


def analyze(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="An analyzer that 'm2rl plugins --check' lists.", autocompletion=component("analyzer")
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where findings.json and tables go.", show_default=False)],
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The model that the others departed from, called 'base'.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=DIR", help="A Hugging Face folder; may be repeated."),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(metavar="STUDY|RUN", help="A study's file, or its folder with all that it has made."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.KEY=VALUE", help="A setting of the analyzer; may be repeated."),
    ] = None,
    local: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="PATH", help="A local plugin; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one analyzer over models: without a study, only weights, log-probs and plain drawing are at hand."""
    from m2rl_core.analyze.alone import BASE, analyze_alone
    from m2rl_core.cli.tables import claims, show, table
    from m2rl_core.config import settings as read
    from m2rl_core.errors import RunError
    from m2rl_core.plugins import load_plugins

    if study is not None and study.is_dir() and out.resolve().is_relative_to(study.resolve()):
        raise RunError(f"{out} lies in the study's folder, which is left as it is", then="choose another --out")
    use = {**read(settings or ()), "use": name}
    held = None if study is None else _study(study)
    registry = load_plugins([*(held.plugins if held else ()), *(str(path.resolve()) for path in local or ())])
    warn(registry.plugins)
    registry.configure("analyzer", use, name)
    made, nodes = _made(held, study, registry) if held and study and study.is_dir() else ({}, [])
    folders = {**made, **({BASE: base} if base else {}), **dict(map(_named, models or ()))}
    if not folders:
        raise typer.BadParameter(
            "no model to analyse: name --model, --base, or a run with --study", param_hint="--model"
        )
    found = analyze_alone(use, folders, registry, out, study=held, nodes=nodes, send=_tell)
    if as_json:
        print_json({"out": out, **asdict(found)})
        return
    show(*map(table, found.tables.values()), *([claims(found.claims)] if found.claims else []))
    typer.echo(f"Done: {out / 'findings.json'}")


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise typer.BadParameter(f"'{text}' should read NAME=DIR", param_hint="--model")
    return name, Path(folder).resolve()


def _study(path: Path) -> Study:
    """The study of a file, or the one that last worked in a folder."""
    from m2rl_core.config import grounded, load_study
    from m2rl_core.study import study_in

    return study_in(path) if path.is_dir() else grounded(load_study(path), path.absolute().parent)


def _made(study: Study, run: Path, registry: Registry) -> tuple[dict[str, Path], list[NodeView]]:
    """The models that are finished in a study's folder, and all its finished nodes; of several seeds, the first."""
    from m2rl_core.config import InitStage, model_names
    from m2rl_core.study import placed

    seed = study.seeds[0] if study.seeds else study.seed
    outside = {study.seed} if study.seeds else set()
    nodes = [
        node.view
        for node in placed(study, registry, run.resolve())
        if (node.seed == seed or (node.kind == "model" and node.seed in outside)) and (node.folder / "DONE").exists()
    ]
    folders = {node.stage: node.folder / "checkpoint" for node in nodes if (node.folder / "checkpoint").exists()}
    trained = [name for name in model_names(study) if not isinstance(study.stages.get(name), InitStage)]
    return {name: folders[name] for name in trained if name in folders}, nodes


def _tell(fields: Mapping[str, Any]) -> None:
    if note := fields.get("note"):
        typer.secho(note, fg="yellow", err=True)
