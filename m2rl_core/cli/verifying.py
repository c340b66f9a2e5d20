"""``m2rl verify`` and ``m2rl rescore``: verifiers at work without a model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from m2rl_core.cli import completing
from m2rl_core.cli.errors import warn
from m2rl_core.cli.options import DomainName, GateOfAll, Local, Settings, installed
from m2rl_core.cli.output import AsJson, print_json
from m2rl_core.types import Reasoning

if TYPE_CHECKING:
    from m2rl_core.rescore import Flip, Rescoring
    from m2rl_core.verify import GoldCheck

__all__ = ["rescore", "verify"]

SHOWN = 50
"""Flipped rewards in the table; ``--out`` takes all."""


def verify(
    domain: DomainName,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="JSON lines with id, response, ground_truth and metadata."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="SCORED", help="Where the verdicts go; standard output by default.")
    ] = None,
    gold: Annotated[
        bool, typer.Option("--gold", help="Check the gold answers of the training prompts, or of the data set FILE.")
    ] = False,
    settings: Settings = None,
    local: Local = None,
    reasoning: GateOfAll = None,
    as_json: AsJson = False,
) -> None:
    """Judge responses with a domain's verifier, or check gold answers: exit code 1 where one is not right."""
    from m2rl_core.config import settings as read

    config = read(settings or ())
    if not gold:
        if file is None:
            raise typer.BadParameter("responses are needed, or --gold", param_hint="FILE")
        _verify_file(domain, _existing(file), config, local or (), reasoning, out, as_json)
        return
    if reasoning is not None:
        raise typer.BadParameter("gold answers have no reasoning", param_hint="--reasoning")
    if file is not None:
        config["source"] = str(_existing(file))
    _check_gold(domain, config, local or (), out, as_json)


def rescore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A study's folder, e.g. runs/miniature.")],
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Only what this stage has stored.", autocompletion=completing.stage),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where all flipped rewards go, as JSON lines.")] = (
        None
    ),
    as_json: AsJson = False,
) -> None:
    """Verify a study's stored rollouts again, and list the rewards that have flipped: exit code 1 where one has."""
    from m2rl_core.errors import RunError
    from m2rl_core.files import jsonl_line
    from m2rl_core.plugins import load_plugins
    from m2rl_core.rescore import Rescoring
    from m2rl_core.study import study_in
    from m2rl_core.verify import cores

    study = study_in(run)
    if out is not None and out.resolve().is_relative_to(run.resolve()):
        raise RunError(f"{out} lies in the study's folder, which is left as it is", then="choose another --out")
    registry = load_plugins(study.plugins)
    warn(registry.plugins)
    again, started = Rescoring(study, registry, run, stage), time.perf_counter()
    shown: list[Flip] = []
    with ExitStack() as stack:
        file = stack.enter_context(_output(out)) if out is not None else None
        for flip in stack.enter_context(closing(again.flipped(cores()))):
            if len(shown) < SHOWN:
                shown.append(flip)
            if file is not None:
                file.write(jsonl_line(flip.record()))
    seconds = time.perf_counter() - started
    if as_json:
        changes = [{"from": then, "to": now, "count": count} for (then, now), count in sorted(again.flips.items())]
        told = {"verified": again.verified, "left_out": again.left_out, "seconds": seconds, "changes": changes}
        print_json({**told, "flips": [flip.record() for flip in shown]})
    else:
        _show_flips(again, shown, seconds)
    if again.flips:
        raise typer.Exit(1)


def _show_flips(again: Rescoring, shown: Sequence[Flip], seconds: float) -> None:
    from m2rl_core.cli.tables import flips, show

    flipped = sum(again.flips.values())
    if shown:
        show(flips(shown))
    if flipped > len(shown):
        typer.echo(f"... and {flipped - len(shown):,} more; --out FILE takes all\n")
    changes = ", ".join(f"{count:,} {then} → {now}" for (then, now), count in sorted(again.flips.items()))
    left_out = f"; {again.left_out:,} could not be verified again" if again.left_out else ""
    found = f"{flipped:,} rewards flipped ({changes})" if flipped else "no reward flipped"
    typer.echo(f"{again.verified:,} rollouts verified again: {found}{left_out}; {seconds:.2f} s")


def _verify_file(
    domain: str,
    file: Path,
    config: dict[str, Any],
    local: Sequence[Path],
    reasoning: Reasoning | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from m2rl_core import api
    from m2rl_core.errors import RunError
    from m2rl_core.files import jsonl_line
    from m2rl_core.verify import Tally

    if out is not None and out.resolve() == file.resolve():
        raise RunError(f"{out} holds the responses; the verdicts need a file of their own")
    tally, started, kept = Tally(), time.perf_counter(), list[dict[str, Any]]()
    verdicts = api.verify(domain, file, settings=config, plugins=local, reasoning=reasoning, registry=installed(local))
    with closing(verdicts), ExitStack() as stack:
        lines = None if as_json and out is None else stack.enter_context(_output(out))
        for verdict in verdicts:
            tally.add(verdict["verdict"])
            if lines is None:
                kept.append(verdict)
            else:
                lines.write(jsonl_line(verdict))
    seconds = time.perf_counter() - started
    if as_json:
        told: dict[str, Any] = {"rows": tally.total, **tally.counts, "seconds": seconds}
        print_json(told if out else {**told, "verdicts": kept})
        return
    rate = f"{tally.total / seconds:,.0f} rows/s"
    typer.echo(f"{tally.total:,} rows: {tally}; {seconds:.2f} s ({rate})", err=out is None)


def _check_gold(name: str, config: dict[str, Any], local: Sequence[Path], out: Path | None, as_json: bool) -> None:
    from m2rl_core.errors import DataError
    from m2rl_core.files import jsonl_line
    from m2rl_core.verify import GoldCheck, build_domain, gold_cases, scored, verified

    domain, spec = build_domain(name, config, local, installed(local))
    found = GoldCheck()
    with ExitStack() as stack:
        verdicts = stack.enter_context(closing(verified(gold_cases(domain, spec.use, found), spec)))
        lines = stack.enter_context(_output(out)) if out is not None else None
        for key, verdict in verdicts:
            found.add(key, verdict)
            if lines is not None:
                lines.write(jsonl_line(scored(key, verdict)))
    if not found.prompts:
        raise DataError(f"domain '{spec.use}' has no training prompts")
    if as_json:
        told: dict[str, Any] = {"prompts": found.prompts, **found.tally.counts, "unreadable": found.unreadable}
        print_json({**told, "unanswered": found.unanswered, "problems": found.problems, "shown": found.shown})
    else:
        _show_gold(found)
    if found.problems:
        raise typer.Exit(1)


def _show_gold(found: GoldCheck) -> None:
    for text in found.shown:
        typer.echo(text)
    if found.problems > len(found.shown):
        typer.echo(f"... and {found.problems - len(found.shown):,} more")
    notes = (f"{found.unreadable:,} unreadable", f"{found.unanswered:,} without a gold answer to check")
    typer.echo(f"{found.prompts:,} prompts: {found.tally}, {', '.join(notes)}")


def _existing(file: Path) -> Path:
    from m2rl_core.errors import DataError

    if not file.is_file():
        raise DataError(f"there is no file {file}", then="name a .jsonl file")
    return file


@contextmanager
def _output(out: Path | None) -> Iterator[BinaryIO]:
    """Where lines go: a file that is there whole or not at all, or standard output."""
    from m2rl_core.files import atomic_file

    if out is None:
        yield typer.get_binary_stream("stdout")
    else:
        with atomic_file(out) as file:
            yield file
