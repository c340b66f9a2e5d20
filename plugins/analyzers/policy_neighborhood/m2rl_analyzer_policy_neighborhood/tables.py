"""Tables and figures of one model or of all: Fig. 4 of the paper, the neighbour sets, and the correlation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from m2rl_analyzer_policy_neighborhood.evidence import Subject, finite, measured, pooled
from m2rl_analyzer_policy_neighborhood.neighbors import counts, neighbors
from m2rl_core.types import Figure, Table

__all__ = ["figures", "tables"]

TAUS = tuple(round(0.05 * i, 2) for i in range(-10, 41))
"""Thresholds of the curve, −0.5 to 2."""
SETS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Thresholds of the table of neighbour sets; the study's own is added."""

ESTIMATES = [
    f"{what} per {unit}{part}"
    for unit in ("sequence", "token")
    for what in ("KL", "sampled KL")
    for part in ("", ", low", ", high")
]


def tables(subjects: Sequence[Subject], tau: float) -> Iterator[tuple[str, Table]]:
    """Everything but the pairwise merges."""
    for subject in subjects:
        yield f"kl-{subject.name}", _grid(subject)
        yield f"neighbors-{subject.name}", _pairs(subject, tau)
    yield "neighbor-sets", _sets(subjects, tau)
    yield "correlation", _correlations(subjects)


def _grid(subject: Subject) -> Table:
    columns = ["expert", "data", *ESTIMATES, "ΔPerf, points", "ΔPerf, low", "ΔPerf, high", "samples", "cut off, %"]
    rows: list[list[str | float | None]] = []
    for (home, domain), cell in subject.cells.items():
        found = [f(e) for f in (cell.per_sequence, cell.per_token) for e in ("full", "sampled")]
        numbers = [number for each in [*found, subject.changes[home, domain]] for number in measured(each)]
        rows.append([home, domain, *numbers, float(cell.samples), 100 * cell.truncated])
    note = (
        f"KL(expert ‖ {subject.name}) in nats on trajectories of the expert, on the prompts of the data domain. KL: "
        "over the whole vocabulary at every drawn token; sampled KL: log ratios of the drawn tokens alone. Intervals "
        f"are 95%, bootstrapped over prompts. ΔPerf: {subject.name} minus that expert on the data domain's suites."
    )
    return Table(f"KL(expert ‖ {subject.title})", columns, rows, note)


def _pairs(subject: Subject, tau: float) -> Table:
    rows: list[list[str | float | None]] = [
        [p.domain, p.other, *measured(p.ratio), finite(p.least_tau), p.says(tau)] for p in subject.pairs
    ]
    note = (
        "Ratio: KL of the other domain's expert over KL of the domain's own expert, per sequence and over the whole "
        "vocabulary, both on the domain's prompts. A neighbour at every τ above ratio − 1 (Eq. 1); uncertain where the "
        "interval holds 1 + τ."
    )
    columns = [
        "domain",
        "other",
        "ratio",
        "ratio, low",
        "ratio, high",
        "neighbour above τ",
        f"neighbour at τ = {tau:g}",
    ]
    return Table(f"Policy neighbours by {subject.title}", columns, rows, note)


def _sets(subjects: Sequence[Subject], tau: float) -> Table:
    taus = sorted({*SETS, tau})
    rows: list[list[str | float | None]] = [
        [s.name, domain, *(", ".join(neighbors(s.pairs, domain, each)) or "none" for each in taus)]
        for s in subjects
        for domain in s.homes
    ]
    columns = ["model", "domain", *(f"τ = {each:g}" for each in taus)]
    return Table(
        "Neighbour sets by threshold", columns, rows, "The closest first. ε = (1 + τ) · KL(own expert ‖ model)."
    )


def _correlations(subjects: Sequence[Subject]) -> Table:
    rows: list[list[str | float | None]] = []
    for s in subjects:
        for unit, kl in (("sequence", s.per_sequence), ("token", s.per_token)):
            rows.append([s.name, unit, "all", *measured(s.correlation(kl))])
            rows.append([s.name, unit, "own domain", *measured(s.own_correlation(kl))])
    rows.append(["all of them", "sequence", "own domain", *measured(pooled(subjects, "per_sequence"))])
    rows.append(["all of them", "token", "own domain", *measured(pooled(subjects, "per_token"))])
    note = (
        "Pearson's r of KL with ΔPerf. Own domain: experts on their own domains, as in the paper's claim. All: every "
        "cell; on other domains an expert is far and weak at once, so that r says little of models. Where cells share "
        "a row or a column, rows and columns are resampled apart; one model's own domains have Fisher's interval."
    )
    return Table("KL and change of performance", ["model", "KL per", "cells", "r", "low", "high"], rows, note)


def figures(subjects: Sequence[Subject], tau: float) -> Iterator[tuple[str, Figure]]:
    """Fig. 4 and one scatter per model; neighbours by threshold."""
    for s in subjects:
        yield f"kl-{s.name}", _heatmap(s)
        yield from _scatter(s)
    pairs = {s.title: counts(s.pairs, TAUS) for s in subjects}
    title, note = "Policy neighbours by threshold", f"The study's own threshold is τ = {tau:g}."
    yield "neighbors-by-tau", Figure(title, "lines", list(TAUS), pairs, "τ", "pairs of neighbours", note)


def _heatmap(subject: Subject) -> Figure:
    """Fig. 4: KL in every cell and, where the models were evaluated, ΔPerf below it."""
    title = f"KL(expert ‖ {subject.title}), nats per sequence"
    known = any(finite(change.value) is not None for change in subject.changes.values())
    beneath = subject.rows(subject.changes) if known else {}
    note = f"Below it: ΔPerf, {subject.title} minus that expert, points." if known else ""
    kl = subject.rows(subject.per_sequence)
    return Figure(title, "heatmap", subject.domains, kl, "data", "expert", note, beneath)


def _scatter(subject: Subject) -> Iterator[tuple[str, Figure]]:
    """KL against ΔPerf: the experts on their own domains, and all other cells."""
    points = sorted((kl.value, at[0] == at[1], subject.changes[at].value) for at, kl in subject.per_token.items())
    known = [point for point in points if finite(point[0]) is not None and finite(point[2]) is not None]
    if known:
        own = [change if home else None for _, home, change in known]
        other = [None if home else change for _, home, change in known]
        series = {"own domain": own, "other domains": other}
        title, labels = f"KL and change of performance: {subject.title}", ("KL, nats per token", "ΔPerf, points")
        yield f"correlation-{subject.name}", Figure(title, "scatter", [x for x, *_ in known], series, *labels)
