"""Studies: the graph of their stages, what is done already, and running the rest.

Read in this order: :mod:`.graph` (which nodes there are), :mod:`.keys` and :mod:`.code` (what their results depend
on), :mod:`.folders` (where these lie), :mod:`.schedule` and :mod:`.worker` (who does the work). None imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from m2rl_core.config import Study, TrainStage, check_references, check_trackers, grounded
from m2rl_core.errors import ConfigError
from m2rl_core.plugins import load_plugins
from m2rl_core.registry import Registry
from m2rl_core.study.folders import claim, is_done, opened, study_in
from m2rl_core.study.graph import Node, named, needed
from m2rl_core.study.keys import keyed, narrowed
from m2rl_core.study.places import placed
from m2rl_core.study.schedule import Progress, run_here, run_parallel
from m2rl_core.study.seeds import one_study
from m2rl_core.study.teams import check_team, run_following
from m2rl_core.study.worker import Job, Team

__all__ = ["Node", "Progress", "Team", "named", "one_study", "placed", "plan", "run_study", "study_in"]

STAGES: Mapping[str, str] = {
    "model": "m2rl_core.model:model",
    "init": "m2rl_core.init:init",
    "sft": "m2rl_core.train_sft:train_sft",
    "rl": "m2rl_core.train_rl:train_rl",
    "merge": "m2rl_core.merge:merge",
    "eval": "m2rl_core.evaluate:evaluate",
    "analyze": "m2rl_core.analyze:analyze",
    "report": "m2rl_core.report:report",
}
"""Kind of stage → its function, imported in the worker alone."""
PRELOAD: Sequence[str] = (
    "transformers.models.qwen3.modeling_qwen3",
    "tensorboard.summary.writer.event_file_writer",
)
"""What stages import only once they are at work."""


def plan(study: Study, registry: Registry, runs: Path) -> list[Node]:
    """All nodes of a study, each after those that it needs, with their keys, folders and whether they are done.

    Args:
        study: with the paths of local folders and files made absolute (:func:`m2rl_core.config.grounded`).
        runs: where studies keep what they made.

    Raises:
        ConfigError: names that do not fit each other, a kind of stage that this version cannot run, or a tracker whose
            package is missing.
        ComponentError: a component that is not there.
        DataError: a model that is not there.
    """
    check_references(study)
    check_trackers(study.trackers)
    for name, stage in study.stages.items():
        if stage.kind not in STAGES:
            raise ConfigError(
                f"stages.{name}.kind: this version cannot run '{stage.kind}'", allowed=STAGES, then="remove the stage"
            )
    nodes = placed(study, registry, runs.absolute() / study.name)
    return [replace(node, done=is_done(node)) for node in keyed(nodes, study, registry, STAGES)]


def run_study(
    study: Study,
    *,
    source: Path,
    runs: Path,
    only: str | None = None,
    progress: Progress,
    parallel: int | None = None,
    registry: Registry | None = None,
    team: Team | None = None,
) -> Path:
    """Do what is left to do of a study.

    Args:
        source: the study's file; relative paths of models, plugins and domains' files start from its folder.
        only: a stage, which is then run with what it needs and nothing else.
        parallel: most worker processes at a time; 0 runs everything in this process.
        team: processes that train each training stage together; one by default.
        registry: the study's plugins where they have been loaded already; ``None`` loads them. Workers load their own.

    Returns:
        The study's folder.

    Raises:
        ConfigError, ComponentError, DataError: as :func:`plan`.
        RunError: the study's folder cannot be used.
        StageError, UserError: of a stage that failed.
    """
    root = source.absolute().parent
    study = study.model_copy(update={"plugins": [str(root / name) for name in study.plugins]})
    study = grounded(study, root)
    registry = load_plugins(study.plugins) if registry is None else registry
    nodes = needed(plan(study, registry, runs), only)
    folder = runs.absolute() / study.name
    job = partial(_job, study, {node.id: node for node in nodes}, team)
    if team is not None:
        check_team(team, nodes)
    if team is not None and team.node > 0:
        run_following(nodes, job, progress)
    else:
        with opened(folder, study):
            _run([node for node in nodes if not _is_cached(folder, node, progress)], job, progress, parallel)
    return folder


def _is_cached(folder: Path, node: Node, progress: Progress) -> bool:
    """Whether a node of the study in ``folder`` is done already; the watcher is told."""
    if done := claim(folder, node):
        progress.cached(node.id)
    return done


def _run(left: Sequence[Node], job: Callable[[Node], Job], progress: Progress, parallel: int | None) -> None:
    """Run what is left to do."""
    if parallel == 0:
        run_here(left, job, progress)
    elif left:
        modules = dict.fromkeys(STAGES[node.kind].partition(":")[0] for node in left)
        run_parallel(left, job, progress, width=parallel, preload=[*modules, *PRELOAD])


def _job(study: Study, nodes: Mapping[str, Node], team: Team | None, node: Node) -> Job:
    """All that ``node``'s worker needs to know."""
    models = {name: nodes[maker].folder / part for name, (maker, part) in node.models.items()}
    before = set(node.inputs)
    for other in reversed(list(nodes.values())):
        if other.id in before:
            before.update(other.inputs)
    views = tuple(other.view for other in nodes.values() if other.id in before)
    trains = isinstance(node.config, TrainStage)
    return Job(node, narrowed(study, node), STAGES[node.kind], models, views, team=team if trains else None)
