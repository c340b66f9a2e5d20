"""What the analyzers found: a section per stage, and the claims of the paper that they tested, all together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Tested:
    """One finding of the paper, as an analyzer has tested it with every seed that is done."""

    stage: str
    statement: str
    section: str
    by_seed: dict[int, tuple[Analysis, Claim]]

    @property
    def verdict(self) -> ClaimVerdict:
        """That of all seeds, or undecided where they differ."""
        verdicts = {claim.verdict for _, claim in self.by_seed.values()}
        return verdicts.pop() if len(verdicts) == 1 else "undecided"

    @property
    def said(self) -> str:
        """The verdict, and those of the seeds where they differ."""
        counts = Counter(claim.verdict for _, claim in self.by_seed.values())
        differ = ", ".join(f"{v} {n}" for v in WORDS if (n := counts[v]))
        return self.verdict if len(counts) == 1 else f"seeds differ: {differ}"


def claims(evidence: Evidence) -> Section | None:
    """Every finding of the paper that an analyzer has tested, in the order of the paper's sections."""
    if not (found := tested(evidence)):
        return None
    seeds = sorted({seed for each in found for seed in each.by_seed})
    headers = ["statistic"] if len(evidence.seeds) == 1 else [f"seed {seed}" for seed in seeds]
    rows = [
        [
            each.statement,
            each.section,
            *(_statistic(evidence, *each.by_seed[seed]) if seed in each.by_seed else None for seed in seeds),
            each.said,
            Link(each.stage, f"#{anchor(each.stage)}"),
        ]
        for each in found
    ]
    counts = Counter(each.verdict for each in found)
    parts = [f"{number(n, 0)} {WORDS[v][n > 1]}" for v in WORDS if (n := counts[v])]
    text = f"What the paper says, tested on this study: {', '.join(parts)}. Statistics with 95% intervals where known."
    columns = ["finding", "section", *headers, "in this study", "tested by"]
    return Section("claims", "The paper's findings", text, {"claims": Table("Tested on this study", columns, rows)})


def tested(evidence: Evidence) -> list[Tested]:
    """All findings, those of one section in the order of the study's stages."""
    found: dict[tuple[str, str, str], Tested] = {}
    for each in evidence.analyses:
        for claim in each.findings.claims:
            key = each.node.stage, claim.statement, claim.section
            found.setdefault(key, Tested(*key, {})).by_seed[each.node.seed] = each, claim
    return sorted(found.values(), key=lambda one: _place(one.section))


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


def _statistic(evidence: Evidence, each: Analysis, claim: Claim) -> Measured | None:
    """Three digits of the claim's number, which leads to the file that it is from."""
    if claim.statistic is None:
        return None
    size = max(abs(value) for value in (claim.statistic, *(claim.interval or ())))
    decimals = min(6, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    href = evidence.link(each.node.folder / FILE)
    return Measured(claim.statistic, claim.interval, href=href, decimals=decimals)


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
