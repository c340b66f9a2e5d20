"""What each domain costs, and how long the others wait for the slowest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from m2rl_core.config import RlStage, SftStage
from m2rl_core.files import read_jsonl
from m2rl_core.report.evidence import Evidence
from m2rl_core.report.tables import Cell, Link
from m2rl_core.types import Table

KINDS = ("rollout", "verify", "score", "train")
"""Kinds of work of which ``times.jsonl`` knows the domains."""
WAIT = "wait/"
"""Before a domain's name: seconds from its last verdict to that of the slowest domain."""

Rows = list[Mapping[str, Any]]


def by_domain(evidence: Evidence, unit: str) -> Table:
    """One row per stage and domain."""
    rows = [row for name, stage in _trained(evidence) for row in _costs(evidence, name, stage)]
    note = (
        "Means over seeds. Rollout, score and train are those of the stage, shared out by the domains' tokens; verify "
        "is measured per domain, in verifiers that work beside all else. What no domain has (sync, idle) is left out."
    )
    columns = ["stage", "domain", *KINDS, "together", "% of the stage", f"{unit}-seconds per step"]
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
    runs = _times(evidence, name)
    spent = [_spent(rows) for rows in runs]
    total = evidence.cost(name)
    steps = stage.steps if isinstance(stage, RlStage) else stage.updates
    for domain in stage.domains:
        found = {kind: _mean(each.get(f"{kind}/{domain}") for each in spent) for kind in KINDS}
        known = [value for value in found.values() if value is not None]
        together = sum(known) if known else None
        portion = 100 * together / total.device if together is not None and total and total.device else None
        each = together / steps if together is not None else None
        yield [_label(evidence, name), domain, *found.values(), together, portion, each]


def _spent(rows: Rows) -> dict[str, float]:
    """Device-seconds of the parts ``KIND/DOMAIN``; verifiers' seconds are no GPU's, and are not in its time."""
    found: dict[str, float] = defaultdict(float)
    for row in rows:
        gpus = row.get("gpus", 0)
        for part, seconds in row["seconds"].items():
            if part.startswith("verify/"):
                found[part] += 0.0 if gpus else seconds
            elif "/" in part and not part.startswith(WAIT):
                found[part] += seconds * gpus if gpus else row["cpu_seconds"].get(part, 0.0)
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
