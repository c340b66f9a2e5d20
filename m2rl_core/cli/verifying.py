"""``m2rl verify`` and ``m2rl rescore``: verifiers at work without a model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from m2rl_core.cli.errors import warn
from m2rl_core.types import Reasoning

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain
    from m2rl_core.rescore import Flip, Rescoring
    from m2rl_core.rollout.verifiers import Spec
    from m2rl_core.verify import GoldCheck

__all__ = ["rescore", "verify"]

SHOWN = 50
"""Flipped rewards in the table; ``--out`` takes all."""


def verify(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="A domain that 'm2rl plugins --check' lists.")],
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
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.KEY=VALUE", help="A setting of the domain; may be repeated."),
    ] = None,
    local: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="PATH", help="A local plugin; may be repeated.")
    ] = None,
    reasoning: Annotated[
        Reasoning | None,
        typer.Option(help="Format gate of all rows; by default 'required' where metadata.reasoning is 'think'."),
    ] = None,
) -> None:
    """Judge responses with a domain's verifier, or check gold answers: exit code 1 where one is not right."""
    from m2rl_core.config import settings as read

    config = read(settings or ())
    plugins = [str(path.resolve()) for path in local or ()]
    if not gold:
        if file is None:
            raise typer.BadParameter("responses are needed, or --gold", param_hint="FILE")
        _, spec = _built(domain, config, plugins)
        _verify_file(file, spec, reasoning, out)
        return
    if reasoning is not None:
        raise typer.BadParameter("gold answers have no reasoning", param_hint="--reasoning")
    if file is not None:
        config["source"] = str(_existing(file))
    _check_gold(*_built(domain, config, plugins), out)


def rescore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A study's folder, e.g. runs/miniature.")],
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="Only what this stage has stored.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where all flipped rewards go, as JSON lines.")] = (
        None
    ),
) -> None:
    """Verify a study's stored rollouts again, and list the rewards that have flipped: exit code 1 where one has."""
    from m2rl_core.errors import RunError
    from m2rl_core.files import jsonl_line
    from m2rl_core.plugins import load_plugins
    from m2rl_core.rescore import Rescoring
    from m2rl_core.study import study_in

    study = study_in(run)
    if out is not None and out.resolve().is_relative_to(run.resolve()):
        raise RunError(f"{out} lies in the study's folder, which is left as it is", then="choose another --out")
    registry = load_plugins(study.plugins)
    warn(registry.plugins)
    again, started = Rescoring(study, registry, run, stage), time.perf_counter()
    shown: list[Flip] = []
    with ExitStack() as stack:
        file = stack.enter_context(_output(out)) if out is not None else None
        for flip in stack.enter_context(closing(again.flipped(_cpus()))):
            if len(shown) < SHOWN:
                shown.append(flip)
            if file is not None:
                file.write(jsonl_line(flip.record()))
    _show_flips(again, shown, time.perf_counter() - started)
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


def _verify_file(file: Path, spec: Spec, reasoning: Reasoning | None, out: Path | None) -> None:
    from m2rl_core.errors import RunError
    from m2rl_core.files import jsonl_line
    from m2rl_core.verify import Tally, check_rows, row_cases, scored, verified

    if out is not None and out.resolve() == file.resolve():
        raise RunError(f"{out} holds the responses; the verdicts need a file of their own")
    check_rows(_existing(file))
    tally, started = Tally(), time.perf_counter()
    with closing(verified(row_cases(file, spec.use, reasoning), spec, _cpus())) as verdicts, _output(out) as lines:
        for key, verdict in verdicts:
            tally.add(verdict)
            lines.write(jsonl_line(scored(key, verdict)))
    seconds = time.perf_counter() - started
    rate = f"{tally.total / seconds:,.0f} rows/s"
    typer.echo(f"{tally.total:,} rows: {tally}; {seconds:.2f} s ({rate})", err=out is None)


def _check_gold(domain: Domain, spec: Spec, out: Path | None) -> None:
    from m2rl_core.errors import DataError
    from m2rl_core.files import jsonl_line
    from m2rl_core.verify import GoldCheck, gold_cases, scored, verified

    found = GoldCheck()
    with ExitStack() as stack:
        verdicts = stack.enter_context(closing(verified(gold_cases(domain, spec.use, found), spec, _cpus())))
        lines = stack.enter_context(_output(out)) if out is not None else None
        for key, verdict in verdicts:
            found.add(key, verdict)
            if lines is not None:
                lines.write(jsonl_line(scored(key, verdict)))
    if not found.prompts:
        raise DataError(f"domain '{spec.use}' has no training prompts")
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


def _built(name: str, config: dict[str, Any], plugins: Sequence[str]) -> tuple[Domain, Spec]:
    """The domain, and how its workers build it."""
    from m2rl_core.config import DomainSection
    from m2rl_core.plugins import load_plugins
    from m2rl_core.rollout.verifiers import Spec

    registry = load_plugins(plugins)
    warn(registry.plugins)
    domain = registry.create("domain", {**config, "use": name}, name)
    return domain, Spec.of(domain, DomainSection(use=name, config=config), plugins)


@contextmanager
def _output(out: Path | None) -> Iterator[BinaryIO]:
    """Where lines go: a file that is there whole or not at all, or standard output."""
    from m2rl_core.files import atomic_file

    if out is None:
        yield typer.get_binary_stream("stdout")
    else:
        with atomic_file(out) as file:
            yield file


def _cpus() -> int:
    """Cores that this process may use: so many verifiers run at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
