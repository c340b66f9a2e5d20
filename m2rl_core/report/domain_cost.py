"""What each domain costs, and how long the others wait for the slowest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from m2rl_core.config import RlStage, SftStage
from m2rl_core.files import read_jsonl
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.tables import Cell, Link
from m2rl_core.types import Table

KINDS = ("rollout", "score", "train")
"""Kinds of a stage's own work of which ``times.jsonl`` knows the domains."""
VERIFIERS = "verify"
WAIT = "wait/"
"""Before a domain's name: seconds from its last verdict to that of the slowest domain."""

Rows = Sequence[Mapping[str, Any]]


def by_domain(evidence: Evidence, unit: str) -> Table:
    """One row per stage and domain."""
    rows = [row for name, stage in _trained(evidence) for row in _costs(evidence, name, stage)]
    note = (
        "Means over seeds. Rollout, score and train are those of the stage, shared out by the domains' tokens; what no "
        "domain has (sync, idle) is left out. Verifiers work beside all else: their seconds are on the clock."
    )
    columns = ["stage", "domain", *KINDS, "together", "% of all", f"{unit}-seconds per step", "verifier seconds"]
    return Table(f"{unit}-seconds by domain", columns, rows, note)


def stalls(evidence: Evidence) -> Table | None:
    """How long finished domains wait for the slowest one; ``None`` without a stage of several domains."""
    mixed = [
        (name, stage) for name, stage in _trained(evidence) if isinstance(stage, RlStage) and len(stage.domains) > 1
    ]
    rows = [row for name, stage in mixed for row in _waits(evidence, name, stage)]
    note = (
        "Seconds on the clock, means over steps and seeds. Waits: from the domain's last verdict of a step to the last "
        "one of all domains. Alone: time in which no other domain was left, in steps that the domain was the last to "
        "end. Missing where the run has not written it down."
    )
    columns = ["stage", "domain", "waits, s per step", "% of rollout", "last in % of steps", "alone, s per step"]
    return Table("Waiting for slow domains", columns, rows, note) if rows else None


def _trained(evidence: Evidence) -> Iterator[tuple[str, SftStage | RlStage]]:
    for name, stage in evidence.study.stages.items():
        if isinstance(stage, SftStage | RlStage):
            yield name, stage


def _times(evidence: Evidence, name: str) -> list[Rows]:
    """Lines of ``times.jsonl``, per node that has any."""
    paths = [node.folder / "times.jsonl" for node in evidence.of_stage(name)]
    return [rows for path in paths if path.exists() and (rows := list(read_jsonl(path)))]


def _costs(evidence: Evidence, name: str, stage: SftStage | RlStage) -> Iterator[list[Cell]]:
    spent = [_spent(rows) for rows in _times(evidence, name)]
    steps = stage.steps if isinstance(stage, RlStage) else stage.updates
    parts = {d: [_mean(each.get(f"{kind}/{d}") for each in spent) for kind in KINDS] for d in stage.domains}
    together = {domain: sum(value or 0.0 for value in found) for domain, found in parts.items()}
    whole = sum(together.values())
    for domain, found in parts.items():
        mine = together[domain]
        known = [mine, 100 * mine / whole, mine / steps] if whole and steps else [None] * 3
        verifiers = _mean(each.get(f"{VERIFIERS}/{domain}") for each in spent)
        yield [_label(evidence, name), domain, *found, *known, verifiers]


def _spent(rows: Rows) -> dict[str, float]:
    """Device-seconds of the parts ``KIND/DOMAIN``, and seconds of verifiers."""
    found: dict[str, float] = defaultdict(float)
    for row in rows:
        gpus = row.get("gpus", 0)
        for part, seconds in row["seconds"].items():
            kind, slash, _ = part.partition("/")
            if slash and kind in KINDS:
                found[part] += seconds * gpus if gpus else row["cpu_seconds"].get(part, 0.0)
            elif slash and kind == VERIFIERS:
                found[part] += seconds
    return dict(found)


def _waits(evidence: Evidence, name: str, stage: RlStage) -> Iterator[list[Cell]]:
    steps = [row["seconds"] for rows in _times(evidence, name) for row in rows]
    drawn = [
        {domain: seconds[WAIT + domain] for domain in stage.domains if WAIT + domain in seconds} for seconds in steps
    ]
    known = [waits for waits in drawn if len(waits) > 1]
    rollout = _mean(seconds.get("rollout") for seconds in steps)
    for domain in stage.domains:
        waited = _mean(waits.get(domain) for waits in known)
        alone = [min(w for d, w in waits.items() if d != domain) for waits in known if waits.get(domain) == 0]
        yield [
            _label(evidence, name),
            domain,
            waited,
            100 * waited / rollout if waited is not None and rollout else None,
            100 * len(alone) / len(known) if known else None,
            sum(alone) / len(known) if known else None,
        ]


def _label(evidence: Evidence, name: str) -> Link:
    return Link(name, evidence.stage_link(name, "times.jsonl"))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
