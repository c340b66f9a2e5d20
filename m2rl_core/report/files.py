"""Where the numbers come from: the files of every node, and the nodes that are not finished."""

from __future__ import annotations

from collections import defaultdict

from m2rl_core.report.evidence import Evidence, Node, done
from m2rl_core.report.section import Section
from m2rl_core.report.tables import Cell, Link
from m2rl_core.types import Table

STAGE_FILES = ("config.yaml", "metrics.jsonl", "times.jsonl", "rollouts.jsonl", "checkpoint")
EVAL_FILES = ("scores.json", "samples.jsonl")
ANALYSIS_FILES = ("config.yaml", "findings.json", "times.jsonl")


def unfinished(evidence: Evidence) -> Section | None:
    """What this report still misses."""
    if not evidence.missing:
        return None
    counts: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for node in evidence.missing:
        counts[node.stage, node.folder.parts[-2] if node.kind == "eval" else ""].append(node)
    rows: list[list[Cell]] = [
        [stage, model or None, len(nodes), ", ".join(dict.fromkeys(_short(n) for n in nodes))]
        for (stage, model), nodes in counts.items()
    ]
    table = Table("Not finished", ["stage", "model", "nodes", "which"], rows)
    text = (
        f"{len(evidence.missing)} of {len(evidence.nodes)} nodes of this study are not finished; they show as missing."
    )
    return Section("missing", "Missing", text, {"missing": table})


def files(evidence: Evidence) -> Section:
    """Links to the run's files, relative to the report."""
    stages = [
        _row(evidence, n, n.stage, STAGE_FILES) for n in evidence.nodes if n.kind not in ("eval", "analyze", "report")
    ]
    evaluations = [
        _row(evidence, n, "/".join(n.folder.parts[-2:]), EVAL_FILES) for n in evidence.nodes if n.kind == "eval"
    ]
    analyses = [_row(evidence, n, n.stage, ANALYSIS_FILES) for n in evidence.nodes if n.kind == "analyze"]
    tables = {
        "files": Table("Stages", ["stage", "seed", "state", *STAGE_FILES], stages),
        "evaluations": Table("Evaluations", ["model/suite", "seed", "state", *EVAL_FILES], evaluations),
    }
    if analyses:
        tables["analyses"] = Table("Analyses", ["stage", "seed", "state", *ANALYSIS_FILES], analyses)
    return Section("files", "Files", "Every number comes from these files.", tables, folded=True)


def _row(evidence: Evidence, node: Node, label: str, names: tuple[str, ...]) -> list[Cell]:
    links = [evidence.link(node.folder / name) for name in names]
    cells = [Link(name, href) if href else None for name, href in zip(names, links, strict=True)]
    return [label, str(node.seed), "done" if done(node) else "not finished", *cells]


def _short(node: Node) -> str:
    return node.folder.name if node.kind == "eval" else f"seed {node.seed}"
