"""What the analyzers found: a section per stage, the tables and figures of all seeds together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from m2rl_core.config import AnalyzeStage
from m2rl_core.findings import FILE
from m2rl_core.registry import use_of
from m2rl_core.report.claims import anchor, stage_claims
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.paper_findings import PLACES
from m2rl_core.report.pooling import pooled_figure, pooled_table, with_intervals
from m2rl_core.report.section import Section
from m2rl_core.types import Figure, Table

T = TypeVar("T", Table, Figure)


def analyses(evidence: Evidence) -> list[Section]:
    """A section for every stage that analyses, once it is done with a seed."""
    stages = dict.fromkeys(each.node.stage for each in evidence.analyses)
    return [_section(evidence, stage) for stage in stages]


def _section(evidence: Evidence, stage: str) -> Section:
    """What the seeds have found, put together where it fits each other, beside each other where it does not."""
    those = {each.node.seed: each.findings for each in evidence.analyses if each.node.stage == stage}
    one = len(evidence.seeds) == 1
    tables = _together({s: f.tables for s, f in those.items()}, pooled_table, one=one)
    figures = _together({s: f.figures for s, f in those.items()}, pooled_figure, one=one)
    shown = {f"{stage}.{name}": with_intervals(table) for name, table in tables.items()}
    if (tested := stage_claims(evidence, stage)) is not None:
        shown[f"{stage}.claims"] = tested
    drawn = {f"{stage}.{name}": figure for name, figure in figures.items() if _known(figure)}
    source = evidence.stage_link(stage, FILE)
    return Section(anchor(stage), f"Analysis: {stage}", _about(evidence, stage), shown, drawn, source=source)


def _together(
    found: Mapping[int, Mapping[str, T]], pool: Callable[[Sequence[T]], T | None], *, one: bool
) -> dict[str, T]:
    """Name → what all seeds say; where that cannot be pooled, ``NAME.seed-SEED`` → what each says."""
    shown: dict[str, T] = {}
    for name in dict.fromkeys(name for each in found.values() for name in each):
        parts = {seed: each[name] for seed, each in found.items() if name in each}
        whole = pool(list(parts.values())) if len(parts) > 1 else None
        if one or whole is not None:
            shown[name] = next(iter(parts.values())) if whole is None else whole
        else:
            shown |= {f"{name}.seed-{s}": replace(p, title=f"{p.title}, seed {s}") for s, p in parts.items()}
    return shown


def _about(evidence: Evidence, stage: str) -> str:
    section = evidence.stage(stage)
    assert isinstance(section, AnalyzeStage)
    name, config = use_of(section.analyzer)
    settings = f" with {', '.join(f'{key} = {_setting(value)}' for key, value in config.items())}" if config else ""
    place = f" ({PLACES[name]})" if name in PLACES else ""
    return f"What the analyzer {name} found{settings}{place}."


def _setting(value: object) -> str:
    """As it reads in a sentence."""
    if isinstance(value, Mapping):
        return f"({'; '.join(f'{key}: {_setting(below)}' for key, below in value.items())})"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _known(figure: Figure) -> bool:
    return any(value is not None for values in figure.series.values() for value in values)
