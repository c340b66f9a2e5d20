"""Table 7 and figures 6 to 8 of the paper with this study's numbers, and all rates behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from m2rl_analyzer_self_verification.evidence import Evidence, finite
from m2rl_analyzer_self_verification.judging import MODES, Mode
from m2rl_core.statistics.scores import Estimate, estimate
from m2rl_core.types import Figure, Table

__all__ = ["NOT_MEASURABLE", "figures", "tables"]

NOT_MEASURABLE = "not measurable"
Cell = str | float | None
Series = dict[str, Sequence[float | None]]


def tables(evidence: Evidence, note: str) -> Iterator[tuple[str, Table]]:
    """Three: scores, rates, correlations.

    Args:
        note: what was left out, for the first of them.
    """
    yield "self-verification", _scores(evidence, note)
    yield "judging", _rates(evidence)
    yield "correlation", _correlations(evidence)


def _scores(evidence: Evidence, note: str) -> Table:
    columns = [f"{s}: {what}" for s in [*evidence.suites, "mean"] for what in ("generation", *MODES)]
    rows: list[list[Cell]] = []
    for model in evidence.models:
        cells: list[Cell] = []
        for suite in evidence.suites:
            cells.append(finite(evidence.generation(model, [suite]).value))
            cells += [_judging(evidence, model, mode, suite) for mode in MODES]
        cells.append(finite(evidence.generation(model, evidence.suites).value))
        rows.append([model, *cells, *(_mean(evidence, model, mode) for mode in MODES)])
    text = (
        "Generation: Avg@k. Outcome and process: share of the model's verdicts on its own answers that agree with the "
        "verifier, from the final answer alone or with the reasoning; unclear verdicts are wrong. All in percent. "
        f"{_measurability(evidence)} {note}"
    )
    return Table("Generation and self-verification", ["model", *columns], rows, text.strip())


def _measurability(evidence: Evidence) -> str:
    if evidence.start is None:
        return "The start was not judged, so whether judging is measurable is not known."
    return (
        f"Not measurable: {evidence.start} has a balanced accuracy below {100 * evidence.least:g}%; "
        "such suites are left out of a mean."
    )


def _judging(evidence: Evidence, model: str, mode: Mode, suite: str) -> Cell:
    if not evidence.measurable(suite, mode):
        return NOT_MEASURABLE
    return finite(evidence.judging(model, mode, [suite]).value)


def _mean(evidence: Evidence, model: str, mode: Mode) -> Cell:
    able = evidence.able(mode)
    return finite(evidence.judging(model, mode, able).value) if able else NOT_MEASURABLE


def _rates(evidence: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for model, found in evidence.judged.items():
        for (suite, mode), judged in found.items():
            agreement = estimate([judged.agreement])
            rates = (
                judged.balanced_accuracy, judged.true_positive_rate, judged.true_negative_rate,
                judged.always_yes, judged.unclear,
            )  # fmt: skip
            able = "yes" if evidence.measurable(suite, mode) else "no"
            counts = [float(len(judged.answers)), float(sum(map(len, judged.verdicts)))]
            rows.append([model, suite, mode, *_three(agreement), *(finite(100 * r) for r in rates), able, *counts])
    columns = [
        "model", "suite", "mode", "agreement", "low", "high", "balanced accuracy", "true positive rate",
        "true negative rate", "always yes", "unclear", "measurable", "answers", "verdicts",
    ]  # fmt: skip
    note = (
        "All in percent. Balanced accuracy is the mean of the two rates: 50 for a judge that does not look. Always "
        "yes: agreement of a judge that calls everything right. A rate is missing where there are no such answers."
    )
    return Table("Judging in detail", columns, rows, note)


def _correlations(evidence: Evidence) -> Table:
    rows: list[list[Cell]] = []
    for mode in MODES:
        able = evidence.able(mode)
        for of, r in (
            ("agreement", evidence.correlation(mode)),
            ("balanced accuracy", evidence.balanced_correlation(mode)),
        ):
            found: list[Cell] = _three(r) if able else [NOT_MEASURABLE, None, None]
            rows.append([mode, of, *found, float(len(evidence.models)), ", ".join(able) or "none"])
    note = (
        "Pearson's r, over the models, of mean generation with mean judging; the 95% interval is Fisher's, which takes "
        "the models for independent. The paper: 0.63 and −0.53 over nine models, by agreement, which also moves with "
        "the share of right answers; balanced accuracy does not."
    )
    columns = ["mode", "judging by", "r", "low", "high", "models", "suites"]
    return Table("Generation and judging, correlated", columns, rows, note)


def _three(found: Estimate) -> list[Cell]:
    return [finite(found.value), finite(found.low), finite(found.high)]


def figures(evidence: Evidence) -> Iterator[tuple[str, Figure]]:
    """Of every mode and suite that is measurable."""
    for mode in MODES:
        if able := evidence.able(mode):
            yield f"{mode}-correlation", _scatter(evidence, mode, able)
    shown = [s for s in evidence.suites if any(evidence.measurable(s, mode) for mode in MODES)]
    if shown:
        yield "modalities", _modalities(evidence, shown)
        yield "process-minus-outcome", _gaps(evidence, shown)
        yield "arms", _arms(evidence)


def _scatter(evidence: Evidence, mode: Mode, able: list[str]) -> Figure:
    """Fig. 6, the models told apart by how they were made."""
    points = sorted(
        (evidence.generation(m, able).value, evidence.judging(m, mode, able).value, m) for m in evidence.models
    )
    known = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    sorts = dict.fromkeys(evidence.sort(model) for *_, model in known)
    series: Series = {s: [y if evidence.sort(model) == s else None for _, y, model in known] for s in sorts}
    title, order = f"Generation and {mode} verification", ", ".join(model for *_, model in known)
    labels = ("mean generation, %", f"mean {mode} judging, %")
    return Figure(title, "scatter", [x for x, *_ in known], series, *labels, f"From left to right: {order}.")


def _modalities(evidence: Evidence, suites: list[str]) -> Figure:
    """Fig. 7, the mean over models."""
    able = [mode for mode in MODES if evidence.able(mode)]
    series: Series = {mode: [_over_models(evidence, suite, mode) for suite in suites] for mode in able}
    return Figure("Ways to judge, by suite", "bars", suites, series, "agreement with the verifier, %")


def _over_models(evidence: Evidence, suite: str, mode: Mode) -> float | None:
    if not evidence.measurable(suite, mode):
        return None
    return finite(sum(evidence.judging(m, mode, [suite]).value for m in evidence.models) / len(evidence.models))


def _gaps(evidence: Evidence, suites: list[str]) -> Figure:
    rows = {model: [_gap(evidence, model, suite) for suite in suites] for model in evidence.models}
    return Figure("Process minus outcome verification, points", "heatmap", suites, rows, "suite", "model")


def _gap(evidence: Evidence, model: str, suite: str) -> float | None:
    if not all(evidence.measurable(suite, mode) for mode in MODES):
        return None
    process, outcome = (evidence.judging(model, mode, [suite]).value for mode in ("process", "outcome"))
    return finite(process - outcome)


def _arms(evidence: Evidence) -> Figure:
    """Fig. 8: the start and the ways to combine domains."""
    shown = [m for m in evidence.models if m == evidence.start or m in evidence.arms]
    series: Series = {"generation": [finite(evidence.generation(m, evidence.suites).value) for m in shown]}
    for mode in MODES:
        if able := evidence.able(mode):
            series[mode] = [finite(evidence.judging(m, mode, able).value) for m in shown]
    return Figure("What combining domains does to judging", "bars", shown, series, "mean over suites, %")
