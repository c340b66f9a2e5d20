"""What a study's folders say, read for the report: scores, metrics, seconds. Nothing here judges or draws."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from m2rl_core.config import AnyStage, RlStage, Study, split_reference
from m2rl_core.errors import DataError
from m2rl_core.files import read_jsonl
from m2rl_core.findings import read_findings
from m2rl_core.statistics.scores import Grid, grid
from m2rl_core.types import Findings

KINDS = ("rollout", "verify", "score", "train", "sync", "idle")
"""Kinds of work that device time is split into; what a stage spends on nothing of these is ``other``."""
FILES = "#files"
"""Where the report lists the run's files."""
VERIFY = "verify/"
"""Before a domain's name: seconds in its verifier."""


class Node(Protocol):
    """One node of the stage graph, as :class:`m2rl_core.run.NodeView` has it."""

    @property
    def stage(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def seed(self) -> int: ...


@dataclass(slots=True)
class Cost:
    """Device time of some work: GPU-seconds where GPUs did it, else CPU-seconds."""

    device: float = 0.0
    """CPU-seconds of verifiers are in it once their processes have ended."""
    wall: float = 0.0
    """Seconds on the clock."""
    gpus: int = 0
    kinds: dict[str, float] = field(default_factory=dict)
    """Device-seconds by kind of work."""
    verifiers: dict[str, float] = field(default_factory=dict)
    """Domain → seconds in its verifier."""

    @property
    def other(self) -> float:
        """Device-seconds that belong to no kind."""
        return max(0.0, self.device - sum(self.kinds.values()))

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one line of ``times.jsonl``.

        ``verify/math`` is spent beside the other kinds, on CPUs; ``train/math`` is a part of ``train``.
        """
        wall: Mapping[str, float] = row["seconds"]
        aside = {kind.removeprefix(VERIFY): seconds for kind, seconds in wall.items() if kind.startswith(VERIFY)}
        self.gpus = max(self.gpus, row.get("gpus", 0))
        spent: Mapping[str, float] = {k: v * self.gpus for k, v in wall.items()} if self.gpus else row["cpu_seconds"]
        verify = {} if self.gpus else {"verify": sum(aside.values())}
        self.kinds = _added(self.kinds, {kind: spent[kind] for kind in KINDS if kind in spent}, verify)
        self.verifiers = _added(self.verifiers, aside)
        self.device += spent["total"]
        self.wall += wall["total"]

    def __add__(self, other: Cost) -> Cost:
        kinds, verifiers = _added(self.kinds, other.kinds), _added(self.verifiers, other.verifiers)
        return Cost(self.device + other.device, self.wall + other.wall, max(self.gpus, other.gpus), kinds, verifiers)

    def __truediv__(self, n: int) -> Cost:
        kinds = {kind: seconds / n for kind, seconds in self.kinds.items()}
        verifiers = {domain: seconds / n for domain, seconds in self.verifiers.items()}
        return Cost(self.device / n, self.wall / n, self.gpus, kinds, verifiers)


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation of one model on one suite."""

    model: str
    suite: str
    node: Node
    scores: Mapping[str, Any]
    """``scores.json``."""

    @cached_property
    def samples(self) -> list[tuple[str, float, float | None, str]]:
        """(prompt, weight, reward, reason where the verdict failed) of every sample; the responses are read past."""
        rows = read_jsonl(self.node.folder / "samples.jsonl")
        return [(r["prompt"], r["weight"], r["reward"], r["reason"] if r["reward"] is None else "") for r in rows]


@dataclass(frozen=True)
class Analysis:
    """One finished analysis."""

    node: Node
    findings: Findings


@dataclass(frozen=True)
class Evidence:
    """A study and what its nodes have left on disk.

    Args:
        nodes: all nodes of the stage graph, finished or not.
        out: folder of the report; links are relative to it.
    """

    study: Study
    nodes: Sequence[Node]
    out: Path

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.study.seeds or [self.study.seed])

    @cached_property
    def missing(self) -> list[Node]:
        """Nodes that are not done, those of the report left out."""
        return [n for n in self.nodes if n.kind != "report" and not done(n)]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """All finished evaluations; of two of one model, suite and seed that of more prompts, or else the later."""
        found: dict[tuple[str, str, int], Evaluation] = {}
        for node in self.nodes:
            if node.kind == "eval" and done(node):
                model, suite = node.folder.parts[-2:]
                scores = json.loads((node.folder / "scores.json").read_text(encoding="utf-8"))
                known = found.get((model, suite, node.seed))
                if known is None or scores["prompts"] >= known.scores["prompts"]:
                    found[model, suite, node.seed] = Evaluation(model, suite, node, scores)
        return list(found.values())

    @cached_property
    def analyses(self) -> list[Analysis]:
        """All finished analyses, in the order of the study's stages.

        Raises:
            DataError: a file that holds no findings.
        """
        order = {name: i for i, name in enumerate(self.study.stages)}
        nodes = [node for node in self.nodes if node.kind == "analyze" and done(node)]
        nodes.sort(key=lambda node: (order.get(node.stage, len(order)), node.seed))
        return [Analysis(node, read_findings(node.folder)) for node in nodes]

    @cached_property
    def planned(self) -> tuple[list[str], list[str]]:
        """Models and suites that the study evaluates, in the order of its stages, whether finished or not."""
        pairs = [n.folder.parts[-2:] for n in self.nodes if n.kind == "eval"]
        order = {name: i for i, name in enumerate(["base", *self.study.stages])}
        models = dict.fromkeys(sorted((m for m, _ in pairs), key=lambda m: (order.get(stage_of(m), len(order)), m)))
        return list(models), list(dict.fromkeys(s for _, s in pairs))

    @cached_property
    def grids(self) -> dict[str, dict[str, Grid]]:
        """Model → suite → rewards, over all seeds that are finished."""
        rewards: dict[tuple[str, str], dict[int, Iterable[tuple[str, float, float | None]]]] = defaultdict(dict)
        for one in self.evaluations:
            rewards[one.model, one.suite][one.node.seed] = (sample[:3] for sample in one.samples)
        grids: dict[str, dict[str, Grid]] = defaultdict(dict)
        for (model, suite), by_seed in rewards.items():
            grids[model][suite] = grid(by_seed)
        return dict(grids)

    @cached_property
    def domain_of(self) -> dict[str, str]:
        """Suite → domain, of suites that have been evaluated at least once."""
        return {e.suite: e.scores["domain"] for e in self.evaluations}

    def grid(self, model: str, suite: str) -> Grid | None:
        return self.grids.get(model, {}).get(suite)

    def stage(self, name: str) -> AnyStage | None:
        """A stage's settings; ``None`` for the study's base model."""
        return self.study.stages.get(stage_of(name))

    def of_stage(self, name: str) -> list[Node]:
        """The stage's nodes, one per seed."""
        return [n for n in self.nodes if n.stage == name]

    def metrics(self, stage: str) -> dict[int, list[dict[str, Any]]]:
        """Seed → lines of ``metrics.jsonl``, also of a stage that is still running."""
        return {n.seed: _lines(n.folder / "metrics.jsonl") for n in self.of_stage(stage)}

    def cost(self, stage: str, until: int | None = None) -> Cost | None:
        """Device time of a stage, the mean over its seeds; of its first ``until`` steps only, if given."""
        by_seed: dict[int, list[Cost]] = defaultdict(list)
        for node in self.of_stage(stage):
            if found := node_cost(node, until):
                by_seed[node.seed].append(found)
        return sum((sum(costs, Cost()) for costs in by_seed.values()), Cost()) / len(by_seed) if by_seed else None

    def link(self, path: Path) -> str:
        """``path`` as a URL relative to the report; empty where there is no such file."""
        return quote(os.path.relpath(path, self.out)) if path.exists() else ""

    def score_link(self, model: str, suite: str) -> str:
        """The file behind a score; the list of all files where several seeds are pooled."""
        found = [e.node for e in self.evaluations if (e.model, e.suite) == (model, suite)]
        return self.link(found[0].folder / "scores.json") if len(found) == 1 else FILES

    def stage_link(self, name: str, file: str) -> str:
        """A file of a stage; the list of all files where several nodes have written it, empty where none has."""
        found = [path for node in self.of_stage(name) if (path := node.folder / file).exists()]
        return self.link(found[0]) if len(found) == 1 else FILES if found else ""

    def rl_stages(self) -> dict[str, RlStage]:
        return {name: stage for name, stage in self.study.stages.items() if isinstance(stage, RlStage)}


def done(node: Node) -> bool:
    """True where the node has finished."""
    return (node.folder / "DONE").exists()


def node_cost(node: Node, until: int | None = None) -> Cost | None:
    """Device time of one node; ``None`` where it has written down none.

    Raises:
        DataError: as :func:`understood`.
    """
    file = node.folder / "times.jsonl"
    rows = _lines(file)
    cost = Cost()
    with understood(file, "times"):
        for row in rows:
            if until is None or (row["step"] is not None and row["step"] < until):
                cost.add(row)
    return cost if rows else None


@contextmanager
def understood(file: Path, what: str) -> Iterator[None]:
    """Say of which file a line is not as the study has written it.

    Raises:
        DataError: instead of what a key that is missing, or a value of another type, raises.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        then = f"remove {file.parent} and run the study again"
        raise DataError(f"{file} holds no {what}", found=repr(error)[:80], then=then) from error


def unit_of(evidence: Evidence) -> str:
    """What does the study's work: ``GPU`` or ``CPU``."""
    costs = [evidence.cost(name) for name in evidence.rl_stages()]
    return "GPU" if any(cost and cost.gpus for cost in costs) else "CPU"


def stage_of(model: str) -> str:
    """The stage that made a model: ``math@200`` is a kept step of ``math``."""
    return split_reference(model)[0]


def _added(*parts: Mapping[str, float]) -> dict[str, float]:
    return {key: sum(part.get(key, 0.0) for part in parts) for key in dict.fromkeys(k for part in parts for k in part)}


def _lines(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path)) if path.exists() else []
