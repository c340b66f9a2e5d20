"""``m2rl report``: what a study has found so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2rl_core.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from m2rl_core.report import Verdict

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="A study's folder, e.g. runs/miniature; several of one study, by seeds."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write it; the first RUN/report-now by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a report of what a study has found so far; what is not done yet is shown as missing.

    Runs of one study with different seeds are pooled: intervals then cover the choice of the training run, too.
    """
    from m2rl_core.cli.scores import show_scores
    from m2rl_core.report import write_report
    from m2rl_core.study import one_study

    study, nodes = one_study(runs)
    out = out or runs[0] / "report-now"
    found = write_report(study, nodes, out)
    page = out / "index.html"
    if as_json:
        print_json({"study": study.name, "report": page, "findings": out / "findings.md", **_document(found)})
        return
    show_scores(study, nodes)
    typer.echo(f"Done: {page}")


def _document(found: Verdict) -> dict[str, Any]:
    """The answer as plain data: points of percent with their 95% intervals."""
    pairs = [(pair.left, pair.right, pair.gap) for pair in found.margins]
    return {
        "answer": found.answer,
        "reasons": found.reasons,
        "margins": [
            {"left": left.way, "left_model": left.model, "right": right.way, "right_model": right.model}
            | {"points": gap.value, "low": gap.low, "high": gap.high}
            for left, right, gap in pairs
        ],
    }
