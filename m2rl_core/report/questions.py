"""The questions that a study is run for, each answered in words and numbers: ``findings.md``, one page to be kept.

Every sentence is made from the numbers below it; what is not known yet is said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from m2rl_core.config import AnalyzeStage
from m2rl_core.registry import use_of
from m2rl_core.report.analyses import analyses
from m2rl_core.report.arms import complete, expert_of, start_of, way_of
from m2rl_core.report.claims import claims
from m2rl_core.report.equal import equal_table, words
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.pages import about
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Measured, interval, markdown, measured, number, plain
from m2rl_core.report.verdict import Verdict
from m2rl_core.statistics.scores import Estimate, Grid, difference, pair, share
from m2rl_core.types import Table

__all__ = ["findings_page"]

WEIGHTS = "weight-shift"
"""The analyzer that compares the weights that experts have changed."""


def findings_page(evidence: Evidence, verdict: Verdict) -> str:
    """The page as Markdown, without links: it may be kept where the run's files are not."""
    parts = [f"# Findings: {plain(evidence.study.name)}", plain(about(evidence)) + "."]
    for section in _sections(evidence, verdict):
        parts += [f"## {plain(section.title)}", plain(section.text)]
        for table in section.tables.values():
            parts += [f"**{plain(table.title)}**", markdown(_unlinked(table)).rstrip("\n"), plain(table.note)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(evidence: Evidence, verdict: Verdict) -> Iterator[Section]:
    compared = verdict.section.tables
    answer = " ".join([verdict.answer, *verdict.reasons, verdict.section.text])
    yield Section("answer", "Mix, merge or distil?", answer, {k: t for k, t in compared.items() if k != "equal"})
    yield from (each(evidence) for each in (_kept, _across))
    if verdict.equal:
        equal = {"equal": equal_table(verdict.equal)}
        yield Section("equal", "Who is ahead at equal steps, prompts and cost?", " ".join(words(verdict.equal)), equal)
    yield from _weights(evidence)
    if (found := claims(evidence)) is not None:
        yield replace(found, title="What the paper says, here", tables={"claims": found.tables["claims"]})


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _kept(evidence: Evidence) -> Section:
    """Share of the experts' mean gain in their own domains that each arm keeps."""
    title = "What share of the experts' gain does each way keep?"
    start, homes = start_of(evidence), _homes(evidence)
    if start is None or not homes:
        return Section("kept", title, "Missing: experts and their start, evaluated in the experts' own domains.")
    suites = [(suite, expert) for expert, own in homes.values() for suite in own]
    base = [evidence.grids[start][suite] for suite, _ in suites]
    whole = [pair(evidence.grids[expert][suite], b) for (suite, expert), b in zip(suites, base, strict=True)]
    gain = difference([evidence.grids[expert][suite] for suite, expert in suites], base)
    rows: list[list[Cell]] = [["the experts", None, measured(gain, signed=True), None]]
    said: dict[str, Estimate] = {}
    for arm, way in _arms(evidence):
        if complete(evidence, arm, [suite for suite, _ in suites]):
            part = [pair(evidence.grids[arm][suite], b) for (suite, _), b in zip(suites, base, strict=True)]
            above = difference([evidence.grids[arm][suite] for suite, _ in suites], base)
            if gain.low > 0:
                said[arm] = _percent(share(part, whole))
            rows.append([arm, way, measured(above, signed=True), measured(said.get(arm))])
    columns = ["model", "way", f"points above {start}", "share of the experts' gain, %"]
    note = "Means over the suites of all domains; each expert counts in its own domain alone."
    table = Table("Mean gain in the experts' own domains", columns, rows, note)
    return Section("kept", title, _kept_words(gain, said), {"kept": table})


def _kept_words(gain: Estimate, said: Mapping[str, Estimate]) -> str:
    known = f"The experts gain {_points(gain)} in their own domains."
    if not gain.low > 0:
        return f"{known} That is not certain, so that shares of it mean nothing."
    if not said:
        return f"{known} Nothing that combines experts has been evaluated on all suites."
    order = sorted(said, key=lambda arm: -said[arm].value)
    return f"{known} Of that, kept: " + "; ".join(f"{arm} {_around(said[arm])}%" for arm in order) + "."


def _percent(found: Estimate) -> Estimate:
    return Estimate(100 * found.value, 100 * found.low, 100 * found.high, 100 * found.error)


# ── domains among each other ─────────────────────────────────────────────────────────────────────────────────────────


def _across(evidence: Evidence) -> Section:
    """What training on one domain does to the others, and what mixing does to each."""
    title = "Do domains help or hurt each other?"
    start, homes = start_of(evidence), _homes(evidence)
    if start is None or len(homes) < 2:
        return Section("across", title, "Missing: two experts and their start, evaluated in both domains.")
    mixed = [arm for arm, way in _arms(evidence) if way == "mix"]
    rows: list[list[Cell]] = []
    pairs: dict[str, Estimate] = {}
    for model in [*(expert for expert, _ in homes.values()), *mixed]:
        gains = {d: _gain(evidence, model, start, suites) for d, (_, suites) in homes.items()}
        rows.append([model, *(measured(each, signed=True) for each in gains.values())])
        own = expert_of(evidence, model)
        pairs |= {f"{model} on {d}": each for d, each in gains.items() if own and each and d != own}
    apart = {
        f"{model} on {d}": gap
        for model in mixed
        for d, (expert, suites) in homes.items()
        if (gap := _gain(evidence, model, expert, suites))
    }
    note = f"Points above {start}, means over a domain's suites. Rows: experts, and what was trained on all domains."
    table = Table("What training on one domain does to all", ["model", *homes], rows, note)
    words = [_tally("Of {} pairs of an expert and another domain", pairs)]
    words += [_tally("Of {} comparisons of mixed training with a domain's expert", apart)] if apart else []
    return Section("across", title, " ".join(words), {"across": table})


def _tally(start: str, found: Mapping[str, Estimate]) -> str:
    """How many are certainly above and below zero, named with their numbers."""
    up = [f"{name} {number(e.value, signed=True)}" for name, e in found.items() if e.low > 0]
    down = [f"{name} {number(e.value, signed=True)}" for name, e in found.items() if e.high < 0]
    left = len(found) - len(up) - len(down)
    sides = [f"{len(side)} {verb} for certain{_listed(side)}" for side, verb in ((up, "gain"), (down, "lose"))]
    return f"{start.format(len(found))}, {sides[0]}, {sides[1]}; {left} cannot be told from none."


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _weights(evidence: Evidence) -> Iterator[Section]:
    """Jaccard overlaps beside those of random masks."""
    stages = evidence.study.stages.items()
    chosen = [n for n, s in stages if isinstance(s, AnalyzeStage) and use_of(s.analyzer)[0] == WEIGHTS]
    for section in analyses(evidence):
        tables = {
            name: table
            for name, table in section.tables.items()
            if name.split(".")[0] in chosen and table.title.startswith("Jaccard overlap by rule")
        }
        if tables:
            text = "Shares of changed weights that two experts have in common, beside masks of as many random weights."
            yield Section("weights", "Do domains change the same weights?", text, tables)


def _homes(evidence: Evidence) -> dict[str, tuple[str, list[str]]]:
    """Domain → its expert and the domain's suites, all of them evaluated for every expert and the start."""
    models, suites = evidence.planned
    start, found = start_of(evidence), dict[str, tuple[str, list[str]]]()
    if start is None or not complete(evidence, start, suites):
        return {}
    for domain in evidence.study.domains:
        expert = next((m for m in models if "@" not in m and expert_of(evidence, m) == domain), None)
        own = [suite for suite in suites if evidence.domain_of.get(suite) == domain]
        if expert is not None and complete(evidence, expert, suites) and own:
            found[domain] = expert, own
    return found


def _arms(evidence: Evidence) -> Iterable[tuple[str, str]]:
    models, _ = evidence.planned
    return [(m, way) for m in models if "@" not in m and (way := way_of(evidence, m))]


def _gain(evidence: Evidence, model: str, other: str, suites: Sequence[str]) -> Estimate | None:
    if not complete(evidence, model, suites):
        return None

    def grids(name: str) -> list[Grid]:
        return [evidence.grids[name][suite] for suite in suites]

    return difference(grids(model), grids(other))


def _points(found: Estimate) -> str:
    return f"{number(found.value, signed=True)} points ({interval(found.low, found.high, signed=True)})"


def _around(found: Estimate) -> str:
    return f"{number(found.value, 0)} ({interval(found.low, found.high, 0)})"


def _unlinked(table: Table) -> Table:
    def plainly(cell: Cell) -> Cell:
        if isinstance(cell, Measured):
            return Measured(cell, cell.interval, best=cell.best, signed=cell.signed, decimals=cell.decimals)
        return str(cell) if isinstance(cell, str) else cell

    return replace(table, rows=[[plainly(cell) for cell in row] for row in table.rows])
