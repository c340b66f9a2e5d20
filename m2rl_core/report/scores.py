"""What the models score: all of them on all suites, the merges among themselves, and what merging keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m2rl_core.config import RlStage, merges_some, split_reference
from m2rl_core.report.arms import complete, contenders, expert_of, mean_score, references, start_of, way_of
from m2rl_core.report.evidence import FILES, Evidence
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Measured, measured
from m2rl_core.statistics.scores import Estimate, Grid, difference, estimate, pair, share
from m2rl_core.types import Figure, Table

MERGING, DISJOINT = "Merging", "disjoint choice"


def scores(evidence: Evidence) -> Section | None:
    """Table 3 of the paper: every model on every suite, of several merges the best."""
    _, suites = evidence.planned
    if not suites:
        return None
    columns = _columns(evidence)
    rows: list[list[Cell]] = []
    for suite in suites:
        found = [estimate([grids[suite]]) if suite in grids else None for _, grids, _ in columns]
        links = [evidence.score_link(model, suite) if model else FILES for _, _, model in columns]
        rows.append([evidence.domain_of.get(suite), suite, *best_marked(found, links)])
    means = [_mean_of(evidence, grids, model, suites) for _, grids, model in columns]
    rows.append(["all", "mean", *best_marked(means, [FILES] * len(columns))])
    table = Table("Scores of all models", ["domain", "suite", *(name for name, *_ in columns)], rows, _note(columns))
    return Section("scores", "Scores", "Every model on every suite (Table 3 of the paper).", {"scores": table})


Column = tuple[str, Mapping[str, Grid], str]
"""A column of Table 3: its name, a grid per suite that is there, and the model; empty where it is no single one."""


def _columns(evidence: Evidence) -> list[Column]:
    """The models; of several merges the one with the highest mean, and beside it a choice that does not see itself."""
    suites, imported = evidence.planned[1], references(evidence)
    models = [model for model in final_models(evidence) if not merges_some(evidence.study, model)]
    merged = next((one for one in contenders(evidence) if one.way == "merge" and one.candidates > 1), None)
    columns: list[Column] = []
    for model in models:
        grids = evidence.grids.get(model, {})
        if merged is None or way_of(evidence, model) != "merge":
            columns += [] if model in imported else [(model, grids, model)]
        elif model == merged.model:
            crossed = dict(zip(suites, merged.grids, strict=True))
            columns += [(f"{MERGING}: {model}", grids, model), (f"{MERGING}, {DISJOINT}", crossed, "")]
    return columns


def _mean_of(evidence: Evidence, grids: Mapping[str, Grid], model: str, suites: Sequence[str]) -> Estimate | None:
    return mean_score(evidence, model) if model else estimate([grids[suite] for suite in suites])


def _note(columns: Sequence[Column]) -> str:
    note = "Avg@k in percent with 95% intervals. Bold: the highest of its row, whether or not the lead is certain."
    if any(not model for *_, model in columns):
        note += (
            f" {MERGING}: the merge with the highest mean, as in the paper, which flatters it; beside it each half of "
            "the prompts is scored by the merge that is best on the other half."
        )
    return note


def kept_gain(evidence: Evidence) -> Section | None:
    """How much of what an expert gained in its own domain each arm keeps."""
    experts = {d: m for m in reversed(final_models(evidence)) if (d := expert_of(evidence, m)) is not None}
    arms = [m for m in final_models(evidence) if way_of(evidence, m)]
    start = start_of(evidence)
    if not experts or not arms or start is None:
        return None
    domains = [d for d in evidence.study.domains if d in experts]
    rows: list[list[Cell]] = [
        ["the expert's gain, points", *(measured(_gain(evidence, experts[d], start, d), signed=True) for d in domains)]
    ]
    rows += [[arm, *(measured(_kept(evidence, arm, experts[d], start, d)) for d in domains)] for arm in arms]
    note = (
        f"First row: points that each domain's expert gains over {start} in its own domain. Below: the share of that "
        "gain which an arm keeps, in percent. Missing where the expert's own gain is not certain."
    )
    table = Table("Share of the experts' gains kept, %", ["model", *domains], rows, note)
    bars = Figure(
        "Share of the experts' gains kept",
        "bars",
        arms,
        {d: [_plain(row[i + 1]) for row in rows[1:]] for i, d in enumerate(domains)},
        x_label="% of the expert's gain in its own domain",
    )
    known = any(value is not None for values in bars.series.values() for value in values)
    figures = {"kept_gain": bars} if known else {}
    return Section("kept", "What is kept of the experts", "", {"kept_gain": table}, figures)


def trajectories(evidence: Evidence) -> Section | None:
    """Figure 2 of the paper: accuracy along a stage, where kept steps were evaluated."""
    models, suites = evidence.planned
    figures = {}
    for name, stage in evidence.rl_stages().items():
        steps = sorted((step, m) for m in models if m.startswith(f"{name}@") and (step := split_reference(m)[1] or 0))
        if not steps:
            continue
        points = _along(stage, name, steps)
        series = {s: [_value(evidence, m, s) for _, m in points] for s in suites}
        figures[f"accuracy-{name}"] = Figure(
            f"{name}: accuracy", "lines", [x for x, _ in points], series, "step", "Avg@k, %"
        )
    if not evidence.rl_stages():
        return None
    text = "Accuracy of every suite along a stage, from the steps that were kept (Figure 2)."
    if not figures:
        text += (
            " Missing: no kept step is evaluated; 'keep_every' keeps them, and 'models' of an eval stage names them."
        )
    return Section("trajectories", "Accuracy along training", text, {}, figures)


def final_models(evidence: Evidence) -> list[str]:
    """All models but kept steps."""
    return [m for m in evidence.planned[0] if "@" not in m]


def _along(stage: RlStage, name: str, steps: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """(step, model) from the stage's start to its end."""
    return [(0, stage.init), *((s, m) for s, m in steps if s < stage.steps), (stage.steps, name)]


def score(evidence: Evidence, model: str, suite: str) -> Estimate | None:
    found = evidence.grid(model, suite)
    return estimate([found]) if found else None


def _value(evidence: Evidence, model: str, suite: str) -> float | None:
    found = evidence.grid(model, suite)
    return found.score if found else None


def best_marked(found: Sequence[Estimate | None], links: Sequence[str]) -> list[Measured | None]:
    """Cells, the highest value among them marked; none where all are equal."""
    values = {e.value for e in found if e is not None}
    top = max(values) if len(values) > 1 else None
    return [measured(e, best=e is not None and e.value == top, href=href) for e, href in zip(found, links, strict=True)]


def _suites_of(evidence: Evidence, domain: str) -> list[str]:
    return [s for s in evidence.planned[1] if evidence.domain_of.get(s) == domain]


def _gain(evidence: Evidence, model: str, start: str, domain: str) -> Estimate | None:
    """Points that ``model`` gains over ``start`` on the domain's suites."""
    suites = _suites_of(evidence, domain)
    if not complete(evidence, model, suites) or not complete(evidence, start, suites):
        return None
    return difference([evidence.grids[model][s] for s in suites], [evidence.grids[start][s] for s in suites])


def _kept(evidence: Evidence, arm: str, expert: str, start: str, domain: str) -> Estimate | None:
    """Percent of the expert's gain; ``None`` where there is no certain gain to keep."""
    gain = _gain(evidence, expert, start, domain)
    if gain is None or gain.low <= 0 or _gain(evidence, arm, start, domain) is None:
        return None
    suites = _suites_of(evidence, domain)
    before = [evidence.grids[start][s] for s in suites]
    part = [pair(evidence.grids[arm][s], b) for s, b in zip(suites, before, strict=True)]
    whole = [pair(evidence.grids[expert][s], b) for s, b in zip(suites, before, strict=True)]
    kept = share(part, whole)
    return Estimate(100 * kept.value, 100 * kept.low, 100 * kept.high, 100 * kept.error)


def _plain(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, float) else None
