"""What the models learned from at the start: the blend of supervised fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from m2rl_core.config import SftStage
from m2rl_core.paper.claims import TABLE_1
from m2rl_core.report.evidence import Evidence, Node, done
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link
from m2rl_core.shares import counts
from m2rl_core.types import Table

BLEND = "blend"
"""Folder of a stage with a description of every source, ``NAME.json``, as far as it learns from such."""


def blend(evidence: Evidence) -> Section | None:
    """Table 1 of the paper: what every stage of supervised fine-tuning was shown."""
    stages = {n: s for n, s in evidence.study.stages.items() if isinstance(s, SftStage)}
    if not stages:
        return None
    rows = [row for name, stage in stages.items() for row in _rows(evidence, name, stage)]
    note = "Conversations of one epoch. Missing where the stage is not done."
    columns = ["stage", "source", "kind", "conversations", "%", "epochs"]
    if evidence.study.reproduces == "paper":
        columns += ["the paper's samples", "% there"]
        rows = [[*row, *_published(str(row[1]))] for row in rows]
    tables = {"blend": Table("Blend of supervised fine-tuning", columns, rows, note)}
    return Section("blend", "Data of supervised fine-tuning", "Where conversations came from (Table 1).", tables)


def _rows(evidence: Evidence, name: str, stage: SftStage) -> Iterator[list[Cell]]:
    """The sources of one stage and their total."""
    node = next((node for node in evidence.of_stage(name) if done(node)), None)
    label = Link(name, evidence.stage_link(name, "config.yaml"))
    shown = _shown(node, stage)
    total = sum(shown.values())
    for source, count in shown.items():
        known = [count, 100 * count / total] if node else [None, None]
        yield [label, source, _kind(stage, source), *known, stage.epochs]
    yield [label, "total", None, total if node else None, 100.0 if node else None, stage.epochs]


def _published(source: str) -> list[Cell]:
    """Samples and percent of a source in Table 1."""
    if source == "total":
        return [sum(row.samples for row in TABLE_1.values()), 100.0]
    row = TABLE_1.get(source)
    return [row.samples, row.percent] if row else [None, None]


def _shown(node: Node | None, stage: SftStage) -> Mapping[str, int]:
    """Source → conversations; of a blend what its own descriptions say, repeats counted."""
    if node is None or not stage.blend:
        return counts(stage.domains, stage.conversations)
    return {name: _kept(node, name) * (source.repeat or 1) for name, source in stage.blend.items()}


def _kept(node: Node, source: str) -> int:
    """Rows of a source, each counted once."""
    card = json.loads((node.folder / BLEND / f"{source}.json").read_text(encoding="utf-8"))
    return int(card["rows"]["kept"])


def _kind(stage: SftStage, source: str) -> str:
    if teacher := stage.rollouts.get(source):
        return f"right samples of {teacher}"
    return "demonstrations" if source in stage.domains else "data set"
