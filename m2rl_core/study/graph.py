"""The stages of a study as a graph of nodes: what is to be run, once per seed, and what each node needs.

A stage is one node, but for ``eval``, which is one node per (model, suite). Models trained elsewhere and the report
stand outside the seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2rl_core.config import (
    AnalyzeStage,
    AnyStage,
    EvalStage,
    InitStage,
    MergeStage,
    ModelStage,
    ReportStage,
    Study,
    TrainStage,
    anchor,
    is_local,
    model_names,
    references,
    split_reference,
)
from m2rl_core.errors import ConfigError, nearest
from m2rl_core.run import NodeView

__all__ = ["Node", "expand", "needed"]

BASE = "base"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Node:
    """One piece of work with a folder of its own."""

    id: str
    """Its folder below the study's: ``math``, ``seed-1/math``, ``evals/math@200/math-hard``."""
    stage: str
    """Name of its stage in the study."""
    config: AnyStage
    """Its stage's section, reduced to this node."""
    seed: int
    """The study's seed of this repetition."""
    inputs: tuple[str, ...] = ()
    """Ids of the nodes that must be done before."""
    models: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Input models, by the names that ``config`` uses → (id of the node, folder below the node's)."""
    domains: tuple[str, ...] = ()
    """Domains of the study that it uses."""
    suite: str = ""
    covered: Mapping[str, Any] = field(default_factory=dict)
    """All that can change its results."""
    key: str = ""
    """Hash of that."""
    folder: Path = Path()
    done: bool = False

    @property
    def kind(self) -> str:
        return self.config.kind

    @property
    def view(self) -> NodeView:
        """What later nodes see of it."""
        hub = self.config.path if isinstance(self.config, ModelStage) and not is_local(self.config) else ""
        return NodeView(self.id, self.stage, self.kind, self.folder, self.seed, self.inputs, self.key, hub)


def expand(study: Study, suites: Mapping[str, str]) -> list[Node]:
    """The nodes of a study whose references are known to be right, each after those that it needs.

    Args:
        suites: every evaluation set of the study's domains → its domain.

    Raises:
        ConfigError: a suite whose name cannot be a folder's.
    """
    stages = dict(study.stages)
    if study.model.base is not None:
        base = ModelStage(kind="model", path=study.model.base, revision=study.model.revision)
        stages = {BASE: base, **stages}
    _check_suites(suites)
    models = [Node(name, name, stage, study.seed) for name, stage in stages.items() if isinstance(stage, ModelStage)]
    nodes = [*models]
    for seed, prefix in [(study.seed, "")] if study.seeds is None else [(s, f"seed-{s}/") for s in study.seeds]:
        nodes += _Repetition(study, stages, suites, seed, prefix).nodes()
    everything = tuple(node.id for node in nodes)
    for name, stage in stages.items():
        if isinstance(stage, ReportStage):
            nodes.append(Node(name, name, stage, study.seed, everything, domains=tuple(study.domains)))
    return _ordered(nodes)


def named(nodes: Sequence[Node], only: str | None) -> list[Node]:
    """The nodes of stage (or node, or seed) ``only``; everything for ``None``.

    Raises:
        ConfigError: no stage is called so.
    """
    wanted = [n for n in nodes if only is None or only in (n.stage, n.id) or n.id.startswith(f"{only}/")]
    if only is not None and not wanted:
        names = list(dict.fromkeys(n.stage for n in nodes))
        raise ConfigError(f"the study has no stage '{only}'.{nearest(only, names)}", allowed=names)
    return wanted


def needed(nodes: Sequence[Node], only: str | None) -> list[Node]:
    """The nodes of stage (or node) ``only`` and all that they need; everything for ``None``.

    Raises:
        ConfigError: no stage is called so.
    """
    wanted = {node.id for node in named(nodes, only)}
    for node in reversed(nodes):
        if node.id in wanted:
            wanted.update(node.inputs)
    return [n for n in nodes if n.id in wanted]


def _check_suites(names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"suite '{name}' cannot name a folder",
                allowed="letters, digits, '_', and after the first also '.' and '-'",
            )


def _ordered(nodes: Sequence[Node]) -> list[Node]:
    """Inputs first, otherwise in the given order."""
    by_id = {node.id: node for node in nodes}
    placed: dict[str, Node] = {}

    def place(node: Node) -> None:
        if node.id not in placed:
            for other in node.inputs:
                place(by_id[other])
            placed[node.id] = node

    for node in nodes:
        place(node)
    return list(placed.values())


@dataclass(frozen=True, slots=True)
class _Repetition:
    """All stages with one seed."""

    study: Study
    stages: Mapping[str, AnyStage]
    suites: Mapping[str, str]
    seed: int
    prefix: str

    def nodes(self) -> Iterator[Node]:
        for name, stage in self.stages.items():
            if isinstance(stage, MergeStage):
                stage = stage.model_copy(update={"base": anchor(self.study, stage)})
            match stage:
                case InitStage() | TrainStage():
                    yield self._node(name, stage, tuple(stage.domains))
                case MergeStage():
                    yield self._node(name, stage, ())
                case EvalStage():
                    yield from self._evaluations(name, stage)
                case AnalyzeStage():
                    yield self._analysis(name, stage)

    def _node(self, name: str, stage: AnyStage, domains: tuple[str, ...]) -> Node:
        models = self._models([model for _, model in references(stage)])
        return Node(self.prefix + name, name, stage, self.seed, _makers(models), models, domains)

    def _evaluations(self, name: str, stage: EvalStage) -> Iterator[Node]:
        for model in self._chosen(stage.models):
            models = self._models([model])
            for suite in stage.suites or self.suites:
                suites = {suite: stage.suites[suite]} if isinstance(stage.suites, Mapping) else [suite]
                config = stage.model_copy(update={"models": [model], "suites": suites})
                node = f"{self.prefix}{name}/{model}/{suite}"
                yield Node(node, name, config, self.seed, _makers(models), models, (self.suites[suite],), suite)

    def _analysis(self, name: str, stage: AnalyzeStage) -> Node:
        """An analyzer sees its models and all evaluations of them."""
        models = self._models(self._chosen(stage.models))
        evaluations = [
            node.id
            for other, section in self.stages.items()
            if isinstance(section, EvalStage)
            for node in self._evaluations(other, section)
            if node.models.keys() <= models.keys()
        ]
        inputs = (*_makers(models), *evaluations)
        return Node(self.prefix + name, name, stage, self.seed, inputs, models, tuple(self.study.domains))

    def _chosen(self, models: Sequence[str]) -> list[str]:
        """``*`` stands for every model that has learned something: all but the fresh ones."""
        trained = [name for name in model_names(self.study) if not isinstance(self.stages[name], InitStage)]
        return list(dict.fromkeys(name for model in models for name in (trained if model == "*" else [model])))

    def _models(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Where each ``NAME`` or ``NAME@STEP`` is: (node, folder below the node's)."""
        found = {}
        for model in names:
            name, step = split_reference(model)
            node = name if isinstance(self.stages[name], ModelStage) else self.prefix + name
            found[model] = node, "checkpoint" if step is None else f"kept/{step:06d}"
        return found


def _makers(models: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """The nodes that write the models."""
    return tuple(dict.fromkeys(node for node, _ in models.values()))
