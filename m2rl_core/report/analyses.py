"""What the analyzers found: a section per stage, and the claims of the paper that they tested, all together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from m2rl_core.config import AnalyzeStage
from m2rl_core.findings import FILE
from m2rl_core.registry import use_of
from m2rl_core.report.evidence import Analysis, Evidence
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link, Measured, number
from m2rl_core.types import Claim, ClaimVerdict, Figure, Table

WORDS: dict[ClaimVerdict, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "undecided": ("is undecided", "are undecided"),
    "not measurable": ("is not measurable", "are not measurable"),
}
"""A verdict as a predicate, of one and of several."""


def claims(evidence: Evidence) -> Section | None:
    """Every finding of the paper that an analyzer has tested, in the order of the paper's sections."""
    found = [(each, claim) for each in evidence.analyses for claim in each.findings.claims]
    if not found:
        return None
    found.sort(key=lambda pair: _place(pair[1].section))
    rows = [_row(evidence, each, claim) for each, claim in found]
    columns = ["finding", "section", "statistic", "in this study", *_seed_column(evidence), "tested by"]
    counts = Counter(claim.verdict for _, claim in found)
    parts = [f"{number(n, 0)} {WORDS[v][n > 1]}" for v in WORDS if (n := counts[v])]
    text = f"What the paper says, tested on this study: {', '.join(parts)}. Statistics with 95% intervals where known."
    return Section("claims", "The paper's findings", text, {"claims": Table("Tested on this study", columns, rows)})


def analyses(evidence: Evidence) -> list[Section]:
    """A section for every stage that analyses, once it is done with a seed."""
    stages = dict.fromkeys(each.node.stage for each in evidence.analyses)
    return [_section(evidence, stage) for stage in stages]


def _section(evidence: Evidence, stage: str) -> Section:
    tables: dict[str, Table] = {}
    figures: dict[str, Figure] = {}
    for each in evidence.analyses:
        if each.node.stage == stage:
            mark, title = _of_seed(evidence, each)
            found = each.findings
            tables |= {f"{stage}.{n}{mark}": replace(t, title=t.title + title) for n, t in found.tables.items()}
            if found.claims:
                tables[f"{stage}.claims{mark}"] = _claims_table(evidence, each, title)
            figures |= {
                f"{stage}.{n}{mark}": replace(f, title=f.title + title) for n, f in found.figures.items() if _known(f)
            }
    return Section(anchor(stage), f"Analysis: {stage}", _about(evidence, stage), tables, figures)


def anchor(stage: str) -> str:
    """Where a stage's section is in the page."""
    return f"analysis-{stage}"


def _about(evidence: Evidence, stage: str) -> str:
    section = evidence.stage(stage)
    assert isinstance(section, AnalyzeStage)
    name, config = use_of(section.analyzer)
    settings = f" with {', '.join(f'{key} = {value}' for key, value in config.items())}" if config else ""
    return f"What the analyzer {name} found{settings}."


def _claims_table(evidence: Evidence, each: Analysis, title: str) -> Table:
    """The claims of one analysis, with its notes."""
    rows: list[list[Cell]] = [
        [claim.statement, claim.section, _statistic(evidence, each, claim), claim.verdict, claim.note or None]
        for claim in each.findings.claims
    ]
    return Table(f"Findings tested{title}", ["finding", "section", "statistic", "in this study", "note"], rows)


def _row(evidence: Evidence, each: Analysis, claim: Claim) -> list[Cell]:
    seed = [str(each.node.seed)] if _seed_column(evidence) else []
    stage = each.node.stage
    statistic = _statistic(evidence, each, claim)
    return [claim.statement, claim.section, statistic, claim.verdict, *seed, Link(stage, f"#{anchor(stage)}")]


def _statistic(evidence: Evidence, each: Analysis, claim: Claim) -> Measured | None:
    """Three digits of the claim's number, which leads to the file that it is from."""
    if claim.statistic is None:
        return None
    size = max(abs(value) for value in (claim.statistic, *(claim.interval or ())))
    decimals = min(6, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    href = evidence.link(each.node.folder / FILE)
    return Measured(claim.statistic, claim.interval, href=href, decimals=decimals)


def _seed_column(evidence: Evidence) -> list[str]:
    return ["seed"] if len(evidence.seeds) > 1 else []


def _of_seed(evidence: Evidence, each: Analysis) -> tuple[str, str]:
    """What tells one repetition from the others, in names of files and in titles."""
    if len(evidence.seeds) == 1:
        return "", ""
    return f".seed-{each.node.seed}", f", seed {each.node.seed}"


def _known(figure: Figure) -> bool:
    return any(value is not None for values in figure.series.values() for value in values)


def _place(section: str) -> tuple[float, ...]:
    """``3.10`` comes after ``3.9``; what is no number comes last."""
    return tuple(_numbers(section))


def _numbers(section: str) -> Iterator[float]:
    for part in section.split("."):
        yield float(part) if part.isdecimal() else math.inf
