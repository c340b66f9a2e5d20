"""The claims of the paper that analyzers and the report have tested, all together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from m2rl_core.config import AnalyzeStage
from m2rl_core.findings import FILE
from m2rl_core.registry import use_of
from m2rl_core.report.core_claims import core_claims
from m2rl_core.report.evidence import FILES, Analysis, Evidence
from m2rl_core.report.paper_findings import Untested, untested
from m2rl_core.report.pooling import estimated
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link, Measured, number
from m2rl_core.statistics.scores import Estimate, pooled
from m2rl_core.types import Claim, ClaimVerdict, Table

__all__ = ["anchor", "claims", "stage_claims", "tested"]

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
    def claims(self) -> list[Claim]:
        return [claim for _, claim in self.by_seed.values()]

    @property
    def estimate(self) -> Estimate | None:
        """The statistic, the mean of the seeds that have one."""
        known = [estimated(c.statistic, c.interval) for c in self.claims if c.statistic is not None]
        return pooled(known) if known else None

    @property
    def verdict(self) -> ClaimVerdict:
        """By the statistic of all seeds together where it decides; else that of all seeds, or undecided."""
        verdicts = {claim.verdict for claim in self.claims}
        expected, found = self.claims[0].expected, self.estimate
        if len(self.by_seed) > 1 and expected and found and "not measurable" not in verdicts:
            return _on_side(found, *expected)
        return verdicts.pop() if len(verdicts) == 1 else "undecided"

    @property
    def said(self) -> str:
        """The verdict, and those of the seeds where they differ."""
        counts: Counter[str] = Counter(claim.verdict for claim in self.claims)
        differ = ", ".join(f"{v} {n}" for v in WORDS if (n := counts[v]))
        return self.verdict if len(counts) == 1 else f"{self.verdict}; seeds differ: {differ}"


def _on_side(found: Estimate, side: Literal["above", "below"], limit: float) -> ClaimVerdict:
    """Whether a statistic is known to be where it is expected; an interval that is not known decides nothing."""
    above, below = found.low > limit, found.high < limit
    if not (above or below):
        return "undecided"
    return "holds" if above == (side == "above") else "fails"


def claims(evidence: Evidence) -> Section | None:
    """Every finding of the paper in the order of its sections: tested by an analyzer or by the report, or not tested.

    ``None`` for a study in which nothing at all is tested.
    """
    found, own = tested(evidence), list(core_claims(evidence))
    if not found and not own:
        return None
    lines = [
        *(_Line(one.section, one.verdict, _own_row(one)) for one in own),
        *(_Line(one.section, one.verdict, _row(evidence, one)) for one in found),
        *(_Line(one.section, UNTESTED, _untested_row(one)) for one in _left(evidence, own)),
    ]
    lines.sort(key=lambda line: _place(line.section))
    counts: Counter[str] = Counter(line.verdict for line in lines)
    parts = [f"{number(n, 0)} {WORDS[v][n > 1]}" for v in WORDS if (n := counts[v])]
    text = f"What the paper says, tested on this study: {', '.join(parts)}. Statistics with 95% intervals where known."
    if len(evidence.seeds) > 1:
        text += " Intervals are over seeds and over prompts or whatever else an analyzer draws."
    columns = ["finding", "in this study", "statistic", "section", "tested by"]
    table = Table("The paper's findings in this study", columns, [line.cells for line in lines])
    return Section("claims", "The paper's findings", text, {"claims": table, **_own_claims(own)})


@dataclass(frozen=True, slots=True)
class _Line:
    section: str
    verdict: str
    cells: list[Cell]


def _row(evidence: Evidence, each: Tested) -> list[Cell]:
    """Of an analysis, all seeds together."""
    link = Link(each.stage, f"#{anchor(each.stage)}")
    return [each.statement, each.said, _pooled_statistic(evidence, each), each.section, link]


def _pooled_statistic(evidence: Evidence, each: Tested) -> Measured | None:
    """Leads to the findings that it is from; of several seeds, to the list of all files."""
    files = [evidence.link(one.node.folder / FILE) for one, _ in each.by_seed.values()]
    found = each.estimate
    return None if found is None else _digits(found, files[0] if len(files) == 1 else FILES)


def _own_row(claim: Claim) -> list[Cell]:
    """Of the report, all seeds together."""
    by = Link("this report", "#table-core_claims")
    return [claim.statement, claim.verdict, _statistic(claim, FILES), claim.section, by]


def _untested_row(one: Untested) -> list[Cell]:
    return [one.statement, UNTESTED, None, one.section, one.takes]


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


def stage_claims(evidence: Evidence, stage: str) -> Table | None:
    """What one stage has tested, with every seed's own statistic and the analyzer's notes; ``None`` for nothing."""
    found = [one for one in tested(evidence) if one.stage == stage]
    seeds = sorted({seed for one in found for seed in one.by_seed}) if len(evidence.seeds) > 1 else []
    rows: list[list[Cell]] = []
    for one in found:
        each = [_of_seed(evidence, one, seed) for seed in seeds]
        rows.append([one.statement, one.section, _pooled_statistic(evidence, one), *each, one.said, _notes(one)])
    columns = ["finding", "section", "statistic", *(f"seed {seed}" for seed in seeds), "in this study", "note"]
    return Table("Findings tested", columns, rows) if rows else None


def _of_seed(evidence: Evidence, one: Tested, seed: int) -> Measured | None:
    if seed not in one.by_seed:
        return None
    analysis, claim = one.by_seed[seed]
    return _statistic(claim, evidence.link(analysis.node.folder / FILE))


def _notes(one: Tested) -> str | None:
    """What the analyzer adds; of several seeds, each that says something else."""
    notes: dict[str, list[int]] = {}
    for seed, (_, claim) in one.by_seed.items():
        notes.setdefault(claim.note, []).append(seed)
    if len(notes) == 1:
        return next(iter(notes)) or None
    return " ".join(f"Seed {', '.join(map(str, seeds))}: {note}" for note, seeds in notes.items() if note)


def anchor(stage: str) -> str:
    """Where a stage's section is in the page."""
    return f"analysis-{stage}"


def _statistic(claim: Claim, href: str) -> Measured | None:
    return None if claim.statistic is None else _digits(estimated(claim.statistic, claim.interval), href)


def _digits(found: Estimate, href: str) -> Measured:
    """Three digits, or those of a count, which lead to the file that the number is from."""
    known = [abs(value) for value in (found.value, found.low, found.high) if math.isfinite(value)]
    size = 0.0 if all(value.is_integer() for value in known) else max(known)
    decimals = min(6, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    return Measured(found.value, (found.low, found.high), href=href, decimals=decimals)


def _place(section: str) -> tuple[float, ...]:
    """``3.10`` comes after ``3.9``; what is no number comes last."""
    return tuple(_numbers(section))


def _numbers(section: str) -> Iterator[float]:
    for part in section.split("."):
        yield float(part) if part.isdecimal() else math.inf
