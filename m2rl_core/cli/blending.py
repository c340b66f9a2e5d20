"""``m2rl blend``: the rows that a study's fine-tuning learns from, counted and written, with nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from m2rl_core.blend import Blend, Part
    from m2rl_core.config import SftStage, Study

__all__ = ["blend"]


def blend(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The study, a YAML file.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the rows go.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a value of the study; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the blend of a study's fine-tuning and show what it is made of; interrupted, it goes on where it was."""
    from m2rl_core.cli.tables import show
    from m2rl_core.config import grounded, load_study

    loaded = grounded(load_study(study, overrides or ()), study.absolute().parent)
    stages, documents = _blended(loaded), dict[str, Any]()
    for name, stage in stages.items():
        folder = out if len(stages) == 1 else out / name
        found = _written(loaded, name, stage, folder)
        documents[name] = _document(found, folder)
        if not as_json:
            show(_table(loaded, name, found))
        _say_conversations(name, stage, found)
    if as_json:
        print_json({"study": loaded.name, "stages": documents})
    else:
        typer.echo(f"Done: {out}")


def _blended(study: Study) -> dict[str, SftStage]:
    """The stages that learn from a blend.

    Raises:
        ConfigError: none does.
    """
    from m2rl_core.config import SftStage
    from m2rl_core.errors import ConfigError

    stages = {name: stage for name, stage in study.stages.items() if isinstance(stage, SftStage) and stage.blend}
    if not stages:
        raise ConfigError(f"no stage of '{study.name}' learns from a blend", then="set 'blend' of an sft stage")
    return stages


def _written(study: Study, name: str, stage: SftStage, folder: Path) -> Blend:
    from m2rl_core.blend import materialised
    from m2rl_core.files import locked, make_folder, room
    from m2rl_core.seeding import derive

    make_folder(folder)
    seed = derive(study.seed if study.seeds is None else study.seeds[0], name)  # as the stage itself has it
    with room(folder), locked(folder / ".lock"):
        return materialised(folder, stage.blend, seed, lambda text: typer.echo(text, err=True))


def _say_conversations(name: str, stage: SftStage, found: Blend) -> None:
    if len(found) == stage.conversations:
        return
    less = "which is more than there are" if len(found) < stage.conversations else "which leaves some out"
    text = f"stages.{name}.conversations is {stage.conversations:,}, {less}: the blend has {len(found):,}."
    typer.secho(text, fg="yellow", err=True)


def _table(study: Study, name: str, found: Blend) -> Table:
    """Table 1: one row per source, beside the paper's where the study is the paper's."""
    from m2rl_core.cli.tables import empty
    from m2rl_core.paper.claims import TABLE_1

    paper = TABLE_1 if study.reproduces == "paper" else {}
    columns = ["samples", "%"] + ["paper's", "paper's %"] * bool(paper) + ["rows read", "dropped"]
    table = empty("source", "sampling method", numbers=columns, title=f"Blend of {name}")
    for part in found.parts:
        counts = [f"{len(part):,}", f"{len(part) / len(found):.2%}".rstrip("%")]
        stated = paper.get(part.name)
        beside = [f"{stated.samples:,}", f"{stated.percent:.2f}"] if stated else ["·", "·"]
        read = [f"{part.tally.read:,}", _dropped(part)]
        table.add_row(part.name, part.section.method, *counts, *(beside if paper else ()), *read)
    whole = [f"{sum(row.samples for row in paper.values()):,}", "100.00"] if paper else []
    table.add_row("total", "", f"{len(found):,}", "100.00", *whole, f"{sum(p.tally.read for p in found.parts):,}", "")
    return table


def _document(found: Blend, folder: Path) -> dict[str, Any]:
    """The same as plain data."""
    sources = [
        {"name": part.name, "source": part.section.source, "method": part.section.method, "samples": len(part)}
        | {"read": part.tally.read, "dropped": part.tally.dropped}
        for part in found.parts
    ]
    return {"folder": folder, "samples": len(found), "sources": sources}


def _dropped(part: Part) -> str:
    return "\n".join(f"{count:,}: {why}" for why, count in part.tally.dropped.items()) or "0"
