"""What the analyzers found: a section per stage, and the claims of the paper that they tested, all together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from m2rl_core.config import AnalyzeStage
from m2rl_core.findings import FILE
from m2rl_core.registry import use_of
from m2rl_core.report.core_claims import core_claims
from m2rl_core.report.evidence import FILES, Analysis, Evidence
from m2rl_core.report.paper_findings import Untested, untested
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link, Measured, number
from m2rl_core.types import Claim, ClaimVerdict, Figure, Table

UNTESTED = "not tested"
WORDS: dict[str, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "undecided": ("is undecided", "are undecided"),
    "not measurable": ("is not measurable", "are not measurable"),
    UNTESTED: ("is not tested", "are not tested"),
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
        counts: Counter[str] = Counter(claim.verdict for _, claim in self.by_seed.values())
        differ = ", ".join(f"{v} {n}" for v in WORDS if (n := counts[v]))
        return self.verdict if len(counts) == 1 else f"seeds differ: {differ}"


def claims(evidence: Evidence) -> Section | None:
    """Every finding of the paper in the order of its sections: tested by an analyzer or by the report, or not tested.

    ``None`` for a study in which nothing at all is tested.
    """
    seeds = sorted({each.node.seed for each in evidence.analyses}) if len(evidence.seeds) > 1 else []
    found, own = tested(evidence), list(core_claims(evidence))
    if not found and not own:
        return None
    lines = [
        *(_Line(one.section, one.verdict, _own_row(one, len(seeds))) for one in own),
        *(_Line(one.section, one.verdict, _row(evidence, one, seeds)) for one in found),
        *(_Line(one.section, UNTESTED, _untested_row(one, len(seeds))) for one in _left(evidence, own)),
    ]
    lines.sort(key=lambda line: _place(line.section))
    counts: Counter[str] = Counter(line.verdict for line in lines)
    parts = [f"{number(n, 0)} {WORDS[v][n > 1]}" for v in WORDS if (n := counts[v])]
    text = f"What the paper says, tested on this study: {', '.join(parts)}. Statistics with 95% intervals where known."
    numbers = ["all seeds" if seeds else "statistic", *(f"seed {seed}" for seed in seeds)]
    columns = ["finding", "in this study", *numbers, "section", "tested by"]
    table = Table("The paper's findings in this study", columns, [line.cells for line in lines])
    return Section("claims", "The paper's findings", text, {"claims": table, **_own_claims(own)})


@dataclass(frozen=True, slots=True)
class _Line:
    section: str
    verdict: str
    cells: list[Cell]


def _row(evidence: Evidence, each: Tested, seeds: Sequence[int]) -> list[Cell]:
    """Of an analysis: one statistic, or one for each seed."""
    by = {seed: _statistic(claim, evidence.link(one.node.folder / FILE))
          for seed, (one, claim) in each.by_seed.items()}  # fmt: skip
    found = [None, *(by.get(seed) for seed in seeds)] if seeds else list(by.values())
    return [each.statement, each.said, *found, each.section, Link(each.stage, f"#{anchor(each.stage)}")]


def _own_row(claim: Claim, seeds: int) -> list[Cell]:
    """Of the report: all seeds together."""
    found = _statistic(claim, FILES)
    by = Link("this report", "#table-core_claims")
    return [claim.statement, claim.verdict, found, *[None] * seeds, claim.section, by]


def _untested_row(one: Untested, seeds: int) -> list[Cell]:
    return [one.statement, UNTESTED, *[None] * (1 + seeds), one.section, one.takes]


def _left(evidence: Evidence, own: Sequence[Claim]) -> Iterator[Untested]:
    stages = {n: use_of(s.analyzer)[0] for n, s in evidence.study.stages.items() if isinstance(s, AnalyzeStage)}
    analysed = {stages[each.node.stage] for each in evidence.analyses if each.node.stage in stages}
    return untested({claim.statement for claim in own}, analysed, set(stages.values()))


def _own_claims(own: Sequence[Claim]) -> dict[str, Table]:
    """What the report tested itself, with its notes."""
    rows: list[list[Cell]] = [[one.statement, _statistic(one, FILES), one.verdict, one.note or None] for one in own]
    columns = ["finding", "statistic", "in this study", "what it is"]
    return {"core_claims": Table("Tested by this report, on scores and on cost", columns, rows)} if rows else {}


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
    href = evidence.link(each.node.folder / FILE)
    rows: list[list[Cell]] = [
        [claim.statement, claim.section, _statistic(claim, href), claim.verdict, claim.note or None]
        for claim in each.findings.claims
    ]
    return Table(f"Findings tested{title}", ["finding", "section", "statistic", "in this study", "note"], rows)


def _statistic(claim: Claim, href: str) -> Measured | None:
    """Three digits of the claim's number, which leads to the file that it is from."""
    if claim.statistic is None:
        return None
    size = max(abs(value) for value in (claim.statistic, *(claim.interval or ())))
    decimals = min(6, max(0, 2 - math.floor(math.log10(size)))) if size else 0
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
