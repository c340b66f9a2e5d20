"""The Python API: what the commands do, as functions. ``from m2rl_core import Study, check, merge, run, verify``.

The command line calls these and nothing beside them. Importing them is cheap; what a function needs is imported when it
is called. Every function raises the errors of :mod:`m2rl_core.errors`, whose messages say what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2rl_core.config import Study
    from m2rl_core.errors import DataError
    from m2rl_core.estimate import Estimate, Machine, MergeCost
    from m2rl_core.merge import Diagnostics, Loaded, Recipe
    from m2rl_core.paper.drift import Drift
    from m2rl_core.registry import Registry
    from m2rl_core.study import Node, Progress, Team
    from m2rl_core.types import Reasoning

__all__ = ["Check", "check", "evaluate", "merge", "open_study", "run", "verify"]

RUNS = Path("runs")


def open_study(study: str | Path | Study, overrides: Sequence[str] = ()) -> Study:
    """A study with the paths of all that it names made absolute, so that it means the same from anywhere.

    Args:
        study: a YAML file, whose folder its relative paths start from; or a :class:`~m2rl_core.config.Study` made in
            Python, whose paths start from the working directory.
        overrides: ``KEY.KEY=VALUE``, as ``--set`` takes them; for a file.

    Raises:
        ConfigError: one line per problem of the file, each with its place.
        DataError: a model that is neither a folder nor a hub id.
    """
    from m2rl_core.config import Study, grounded, load_study

    if isinstance(study, Study):
        return grounded(study, Path.cwd())
    return grounded(load_study(study, overrides), Path(study).absolute().parent)


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of a study before it runs."""

    study: Study
    nodes: Sequence[Node]
    """Its work, each piece after those that it needs, and whether it is done."""
    machine: Machine
    """What the estimates are for."""
    estimates: Sequence[Estimate]
    """Memory and time of each training stage."""
    merges: Sequence[MergeCost]
    """Disk and time of each merge."""
    stated: Mapping[str, float]
    """Stage → the GPU hours that the paper states; of a study that reproduces it."""
    drift: Sequence[Drift]
    """The paper's claims beside the study's values; of a study that reproduces it."""
    data: Sequence[DataError]
    """Data that is missing or wrong."""


def check(
    study: str | Path | Study,
    *,
    runs: str | Path = RUNS,
    machine: Machine | None = None,
    registry: Registry | None = None,
) -> Check:
    """Look at a study without running it: no model is loaded, and no network is asked.

    Args:
        study: as for :func:`open_study`.
        runs: where studies keep what they made.
        machine: what to estimate for, e.g. :func:`m2rl_core.estimate.machine` of ``h200x8``; this one by default.
        registry: the study's plugins where they are loaded already.

    Raises:
        ConfigError, ComponentError: it cannot be run as it stands.
        StageError: a component's own code failed.
    """
    from m2rl_core.config import check_components
    from m2rl_core.estimate import estimate, merge_costs
    from m2rl_core.estimate import machine as this_machine
    from m2rl_core.paper.counterparts import gpu_hours
    from m2rl_core.paper.drift import drift
    from m2rl_core.plugins import load_plugins
    from m2rl_core.study import plan

    opened, data = open_study(study), list["DataError"]()
    registry = load_plugins(opened.plugins) if registry is None else registry
    check_components(opened, registry, data)
    devices, is_papers = machine or this_machine(), opened.reproduces == "paper"
    nodes = plan(opened, registry, Path(runs))
    estimates = estimate(opened, registry, devices)
    merges = merge_costs(opened, registry, devices)
    stated = gpu_hours(opened) if is_papers else {}
    found = drift(opened, registry) if is_papers else ()
    return Check(opened, nodes, devices, estimates, merges, stated, found, data)


def run(
    study: str | Path | Study,
    *,
    runs: str | Path = RUNS,
    only: str | None = None,
    team: Team | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> Path:
    """Run a study, or go on with it: finished stages are kept, an interrupted one resumes.

    Stages run in worker processes, which import the program's main module: a script that calls this does so below
    ``if __name__ == "__main__":``.

    Args:
        study: as for :func:`open_study`.
        runs: where studies keep what they made; the study's folder there has its name.
        only: a stage, which is then run with what it needs and nothing else.
        team: processes and machines that train each training stage together; one process by default.
        progress: who watches; by default, lines or a table on standard output.
        registry: the study's plugins where they are loaded already.

    Returns:
        The study's folder; the report is its ``report/index.html``.

    Raises:
        ConfigError, ComponentError, DataError: it cannot be run as it stands.
        RunError: its folder cannot be used, or the disk is full.
        StageError, UserError: of a stage that failed.
    """
    from rich.console import Console

    from m2rl_core.config import check_components
    from m2rl_core.files import room
    from m2rl_core.plugins import load_plugins
    from m2rl_core.progress import open_progress
    from m2rl_core.study import run_study

    opened, runs = open_study(study), Path(runs)
    registry = load_plugins(opened.plugins) if registry is None else registry
    check_components(opened, registry)
    with room(runs), open_progress(Console()) if progress is None else nullcontext(progress) as watcher:
        return run_study(
            opened, source=Path("study"), runs=runs, only=only, progress=watcher, registry=registry, team=team
        )


def evaluate(
    model: str | Path,
    suites: Sequence[str],
    out: str | Path,
    *,
    limit: int | None = None,
    changes: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> list[dict[str, Any]]:
    """Score one model on suites: a study of one ``eval`` stage, which resumes as every study does.

    Args:
        model: a Hugging Face folder.
        suites: ``DOMAIN``, all of its suites; ``DOMAIN:SUITE``; or ``DOMAIN:SUITE:K`` with K samples per prompt instead
            of the suite's own number.
        out: where samples and scores go.
        limit: only the first so many prompts of each suite.
        changes: sections of a study that are merged in, e.g. ``{"domains": {"math": {"aime24": DIR}}}``.
        plugins: local files or folders that offer components.
        progress: as for :func:`run`.
        registry: the plugins where they are loaded already, ``plugins`` included.

    Returns:
        For each suite what its ``scores.json`` says: ``suite``, ``domain``, ``score`` in percent with its ``interval``,
        ``k``, ``pass_at_k``, ``prompts``, ``failed``, ``truncated``, ``mean_tokens``.

    Raises:
        ConfigError, ComponentError: there is no such domain or suite, or settings that they do not take.
        DataError: no such model, or a suite without prompts.
        StageError: too many verifiers failed, or a component did.
    """
    from m2rl_core.config import Study
    from m2rl_core.evaluation import evaluation
    from m2rl_core.plugins import load_plugins

    local = [str(Path(path).resolve()) for path in plugins]
    registry = load_plugins(local) if registry is None else registry
    tree = evaluation(str(Path(model).absolute()), suites, registry, changes or {}, limit)
    study = Study.model_validate({**tree, "plugins": local})
    folder = run(study, runs=out, progress=progress, registry=registry)
    scores = [folder / "evals" / "model" / suite / "scores.json" for suite in tree["stages"]["evals"]["suites"]]
    return [json.loads(file.read_text()) for file in scores]


def merge(
    recipe: str | Path | Mapping[str, Any] | Recipe | Loaded,
    out: str | Path,
    *,
    threads: int | None = None,
    report: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Diagnostics:
    """Merge experts into one model, streamed: memory does not grow with the models.

    Args:
        recipe: a file of m2rl's form or of mergekit's, whose folders start from the file's; or what such a file of
            m2rl's form says, e.g. ``{"merger": "ties", "base": DIR, "experts": {"math": DIR, "code": DIR}}``.
        out: the new model's folder, which appears whole or not at all; of a sweep, that of the models' folders.
        threads: the result does not depend on it.
        report: is told the bytes read so far, and those to be read in all.
        registry: the plugins where they are loaded already.

    Returns:
        Lengths and angles of the task vectors, fingerprints of the inputs, what the merger itself tells.

    Raises:
        ConfigError, ComponentError: a recipe that cannot be followed.
        DataError: models that do not belong together, or a weight that is no finite number.
        RunError: ``out`` is not empty, or the disk is too small.
    """
    from m2rl_core.merge import Loaded, Recipe, load_recipe, merge_recipe, stated
    from m2rl_core.plugins import load_plugins

    match recipe:
        case Loaded():
            loaded = recipe
        case str() | Path():
            loaded = load_recipe(Path(recipe))
        case _:
            loaded = stated(recipe.model_dump() if isinstance(recipe, Recipe) else recipe)
    registry = load_plugins() if registry is None else registry
    return merge_recipe(loaded, registry, out=Path(out), threads=threads, report=report)


def verify(
    domain: str,
    rows: str | Path | Iterable[Mapping[str, Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    reasoning: Reasoning | None = None,
    registry: Registry | None = None,
) -> Generator[dict[str, Any]]:
    """Judge responses with a domain's verifier, in worker processes that are killed at their limits.

    Args:
        domain: its name.
        rows: ``id``, ``response`` (text, or a list of assistant turns), ``ground_truth`` and perhaps ``metadata``; a
            file of JSON lines is read once to its end before anything is judged.
        settings: the domain's own.
        plugins: local files or folders that offer components.
        reasoning: format gate of all rows; ``None``: ``required`` where ``metadata.reasoning`` says ``think``.
        registry: the plugins where they are loaded already, ``plugins`` included.

    Returns:
        For each row, in order, ``id``, ``reward`` (``None`` where the *verifier* failed), ``verdict``, ``reason`` and
        ``seconds``.

    Raises:
        ConfigError, ComponentError: no such domain, or settings that it does not take.
        DataError: no such file, or a row of another shape; of rows that are no file, when it is their turn.
    """
    from m2rl_core.verify import build_domain, check_rows, row_cases, scored, verified

    _, spec = build_domain(domain, settings or {}, plugins, registry)
    if isinstance(rows, str | Path):
        rows = Path(rows)
        check_rows(rows)

    def lines() -> Generator[dict[str, Any]]:
        with closing(verified(row_cases(rows, spec.use, reasoning), spec)) as verdicts:
            for key, each in verdicts:
                yield scored(key, each)

    return lines()
