"""The command line: ``m2rl COMMAND``.

Importing this module must stay cheap: what a command needs is imported when it runs, so that ``m2rl --help`` and
``m2rl plugins`` answer at once.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import m2rl_core
from m2rl_core import api
from m2rl_core.cli import completing
from m2rl_core.cli.analyzing import analyze
from m2rl_core.cli.blending import blend
from m2rl_core.cli.doctoring import doctor
from m2rl_core.cli.errors import Group, warn
from m2rl_core.cli.evaluating import evaluate
from m2rl_core.cli.listing import plugins
from m2rl_core.cli.merging import merge
from m2rl_core.cli.output import AsJson, print_json
from m2rl_core.cli.reporting import report
from m2rl_core.cli.scaffolding import new
from m2rl_core.cli.serving import serve_verifier
from m2rl_core.cli.verifying import rescore, verify

if TYPE_CHECKING:
    from m2rl_core.config import Study
    from m2rl_core.registry import Registry

__all__ = ["main"]

app = typer.Typer(
    name="m2rl",
    cls=Group,
    help="Mix, merge or distil? Multi-domain reinforcement learning, answered by experiment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a value of the study; may be repeated."),
]
Nproc = Annotated[int, typer.Option(min=1, metavar="N", help="Processes that train a stage together, one per GPU.")]
Nnodes = Annotated[int, typer.Option(min=1, metavar="N", help="Machines; run the same command on each.")]
NodeRank = Annotated[int, typer.Option(min=0, metavar="I", help="Which machine this is; 0 does what is not training.")]
Rendezvous = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where machines meet: an address of machine 0.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where studies keep what they made.")]


def main() -> None:
    """The entry point of the ``m2rl`` command."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"m2rl {m2rl_core.__version__}")
        raise typer.Exit


@app.callback()
def _m2rl(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = (
        False
    ),
) -> None:
    pass


@app.command()
def run(
    study: StudyFile,
    only: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Only this stage and what it needs.", autocompletion=completing.stage),
    ] = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    nproc: Nproc = 1,
    nnodes: Nnodes = 1,
    node_rank: NodeRank = 0,
    rendezvous: Rendezvous = "",
    as_json: AsJson = False,
) -> None:
    """Run a study, or go on with it: finished stages are kept, an interrupted one resumes."""
    from rich.console import Console

    from m2rl_core.cli.checking import nodes
    from m2rl_core.cli.scores import show_scores
    from m2rl_core.progress import open_progress
    from m2rl_core.study import Team, one_study, plan

    team = Team(nproc, nnodes, node_rank, rendezvous) if nproc * nnodes > 1 else None
    loaded, registry = _opened(study, overrides)
    with open_progress(Console(stderr=True)) if as_json else nullcontext() as progress:
        folder = api.run(loaded, runs=runs, only=only, team=team, progress=progress, registry=registry)
    if as_json:
        print_json({"study": loaded.name, "folder": folder, "nodes": nodes(plan(loaded, registry, runs))})
        return
    if only is None and node_rank == 0:
        show_scores(*one_study([folder]))
    typer.echo(f"Done: {folder}")


@app.command()
def check(
    study: StudyFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    device: Annotated[
        str | None,
        typer.Option(metavar="NAMExCOUNT", help="What to estimate for, e.g. h200x8; this machine by default."),
    ] = None,
    nproc: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Estimate for so many processes, a device for each.")
    ] = None,
    nnodes: Annotated[int, typer.Option(min=1, metavar="N", help="On each of so many machines.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Check a study without running it, and show its stages: what is done, what is to be run, memory and time.

    Where it is meant to be the paper's, also where it differs. Data that is missing or wrong is told last.
    """
    from m2rl_core.cli.checking import document, show_check
    from m2rl_core.errors import DataError, joined
    from m2rl_core.estimate import machine

    loaded, registry = _opened(study, overrides)
    found = api.check(loaded, runs=runs, machine=machine(device, nproc=nproc, nnodes=nnodes), registry=registry)
    if as_json:
        print_json(document(found))
        raise typer.Exit(DataError.exit_code if found.data else 0)
    show_check(found)
    if found.data:
        raise joined(found.data, DataError)


app.add_typer(plugins, name="plugins")
app.command()(new)
app.command()(merge)
app.command()(blend)
app.command()(verify)
app.command()(rescore)
app.command()(analyze)
app.command("eval")(evaluate)
app.command()(report)
app.command()(doctor)
app.command()(serve_verifier)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, installed plugins' settings included, by which editors complete them.

    Write it to study.schema.json and begin a study with "# yaml-language-server: $schema=study.schema.json".
    """
    from m2rl_core.config import schema
    from m2rl_core.plugins import load_plugins

    registry = load_plugins()
    warn(registry.plugins)
    print_json(schema(registry))


def _opened(file: Path, overrides: list[str] | None) -> tuple[Study, Registry]:
    """A study and the plugins that it may use; those that are broken are told of."""
    from m2rl_core.plugins import load_plugins

    study = api.open_study(file, overrides or ())
    registry = load_plugins(study.plugins)
    warn(registry.plugins)
    return study, registry
