"""Components that a study asks of the plugins: that they exist, take their settings, and get what they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from m2rl_core.composition import compose
from m2rl_core.config.paths import local_path
from m2rl_core.config.references import anchor, model_names
from m2rl_core.config.search import candidate, grid_points, need_optuna, part_names
from m2rl_core.config.stages import AnalyzeStage, AnyStage, EvalStage, MergeStage, RlStage, SftStage
from m2rl_core.config.study import Study
from m2rl_core.config.suites import suite_owners
from m2rl_core.errors import ConfigError, DataError, M2rlError, UserError, boundary, joined
from m2rl_core.interfaces import Domain, Merger
from m2rl_core.plugins import Registry
from m2rl_core.registry import use_of
from m2rl_core.rows import local_files

__all__ = ["check_components", "check_experts"]


def check_components(study: Study, registry: Registry, data: list[DataError] | None = None) -> None:
    """Check that every component of a study exists, takes its configuration, and gets what it needs.

    Domains, algorithms and their parts, mergers and analyzers are built; an engine is not. Domains check their data.

    Args:
        study: with the paths of its domains' files made absolute (:func:`m2rl_core.config.grounded`), or else they
            start from the working directory.
        data: takes what is wrong with data, so that the rest of a study can be looked at before its data is there.

    Raises:
        ComponentError, ConfigError, DataError: the problem, if there is one.
        StageError: a component's own code failed.
        ConfigError: one line per problem, if there are several.
    """
    found: list[M2rlError] = []
    with _gathered(found):
        name, config = use_of(study.engine, "engine")
        registry.lookup("engine", name, "engine")
        if config:  # an engine's class may import torch, which takes seconds; no settings need no class
            registry.configure("engine", study.engine, "engine")
    domains: dict[str, Domain] = {}
    for name, section in study.domains.items():
        use, owner = {"use": section.use, **section.config}, f"domains.{name}"
        with _gathered(found):
            registry.configure("domain", use, owner, also=("use", "reasoning"))
            domains[name] = registry.create("domain", use, owner)
            with _gathered(found if data is None else data, DataError):
                _checked(domains[name], owner)
    for name, stage in study.stages.items():
        with _gathered(found):
            _components(study, registry, f"stages.{name}", stage, domains)
        if isinstance(stage, SftStage):
            for place, source in _sources(f"stages.{name}", stage):
                with _gathered(found if data is None else data, DataError):
                    _readable(place, source)
        if isinstance(stage, EvalStage) and len(domains) == len(study.domains):
            with _gathered(found):
                suite_owners(domains, stage.suites, f"stages.{name}.suites")
    if found:
        raise joined(found, ConfigError)


@contextmanager
def _gathered(found: list[Any], kind: type[M2rlError] = M2rlError) -> Iterator[None]:
    try:
        yield
    except kind as error:
        found.append(error)


def _sources(owner: str, stage: SftStage) -> Iterator[tuple[str, str]]:
    """(dotted path, source) of everything that a blend reads."""
    for name, each in stage.blend.items():
        yield f"{owner}.blend.{name}.source", each.source
        yield from ((f"{owner}.blend.{name}.questions.{key}", source) for key, source in each.questions.items())


def _readable(owner: str, source: str) -> None:
    """See that there is something to read. Nothing is read: a blend may hold more than can be read in a check.

    Raises:
        DataError: there is not.
    """
    try:
        local_files(source)
    except DataError as error:
        raise DataError(f"{owner}: {error}") from error


def _checked(domain: Domain, owner: str) -> None:
    """Let a domain check its data.

    Raises:
        DataError: what it found.
        StageError: the domain's own code failed.
    """
    try:
        with boundary(owner, "checking its data"):
            domain.check()
    except UserError as error:
        raise DataError(f"{owner}: {error}") from error


def _components(study: Study, registry: Registry, owner: str, stage: AnyStage, domains: Mapping[str, Domain]) -> None:
    if isinstance(stage, RlStage):
        _algorithm(registry, stage, owner, {name: domains[name] for name in stage.domains if name in domains})
        _mixture(registry, stage, f"{owner}.mixture")
    elif isinstance(stage, MergeStage):
        _merger(study, registry, stage, owner)
    elif isinstance(stage, AnalyzeStage):
        registry.create("analyzer", stage.analyzer, f"{owner}.analyzer")


def _algorithm(registry: Registry, stage: RlStage, owner: str, domains: Mapping[str, Domain]) -> None:
    """Check an algorithm with its parts, that there are teachers exactly where they are needed, and whole sequences."""
    made = compose(registry, stage.algorithm, f"{owner}.algorithm")
    name, taught = use_of(stage.algorithm)[0], made.taught
    if not made.loss.separable and (split := [each for each, domain in domains.items() if domain.splits]):
        raise ConfigError(
            f"{owner}.algorithm: loss '{made.loss.name}' needs whole sequences, and samples of {', '.join(split)} are "
            "trained as several, because their episodes drop earlier reasoning",
            then="let these domains keep it, or use a loss that goes token by token",
        )
    if stage.staleness and made.importance is None:
        taught_too = " (a teacher does not make up for that: it, too, judges tokens that another policy has drawn)"
        raise ConfigError(
            f"{owner}.staleness: tokens are then drawn by weights one step older than those that are trained, and "
            f"algorithm '{name}' does not correct for it{taught_too if taught else ''}",
            found=stage.staleness,
            then=f"give it a rule, as in 'algorithm: {{use: {name}, importance: mis}}', or set staleness: 0",
        )
    if stage.refill and taught:
        raise ConfigError(
            f"{owner}.refill: under '{name}' groups of equal rewards teach too", found=stage.refill, allowed="0"
        )
    if taught and (untaught := [domain for domain in stage.domains if domain not in stage.teachers]):
        raise ConfigError(
            f"{owner}.teachers: algorithm '{name}' needs a teacher for {', '.join(untaught)}",
            then=f"name a model for each, as in {{{untaught[0]}: MODEL}}",
        )
    if stage.teachers and not taught:
        raise ConfigError(
            f"{owner}.teachers: algorithm '{name}' learns from no teacher",
            then="leave teachers out, or take an algorithm that distils",
        )


def _mixture(registry: Registry, stage: RlStage, owner: str) -> None:
    """Check a mixture, and that its settings fit the stage's domains."""
    if stage.mixture is None:
        return
    mixture = registry.create("mixture", stage.mixture, owner)
    with boundary(f"mixture '{mixture.name}'", "checking its domains"):
        try:
            mixture.check(list(stage.domains))
        except ValueError as error:
            raise ConfigError(f"{owner}.{error}", found=", ".join(stage.domains)) from error


def _merger(study: Study, registry: Registry, stage: MergeStage, owner: str) -> None:
    """Check a merger, that its settings fit the experts, and that there is a base where it is needed."""
    merger = registry.create("merger", stage.merger, f"{owner}.merger")
    check_experts(merger, stage.experts, f"{owner}.merger")
    if merger.needs_base and anchor(study, stage) is None:
        raise ConfigError(
            f"{owner}.base: '{merger.name}' needs the model that the experts departed from; they share no 'init'",
            allowed=model_names(study),
        )
    needs = ", ".join(sorted(merger.needs))
    if merger.needs and stage.evidence is None:
        raise ConfigError(
            f"{owner}.evidence: merger '{merger.name}' needs evidence of each expert beyond its weights",
            found=f"none of {needs}",
            then="set 'evidence: {samples: 64}', which gathers it from the rollouts that the experts' stages stored",
        )
    for name, file in stage.evidence.conversations.items() if stage.evidence else ():
        if local_path(file) is None:
            raise ConfigError(f"{owner}.evidence.conversations.{name}: there is no such file", found=file)
    if stage.evidence is not None and not merger.needs:
        raise ConfigError(f"{owner}.evidence: merger '{merger.name}' looks at weights alone", then="leave it out")
    if stage.search is not None:
        _search(registry, stage, f"{owner}.search")


def _search(registry: Registry, stage: MergeStage, owner: str) -> None:
    """Check that the merger takes every point of the grid, and that there is a library for Bayesian rounds."""
    assert stage.search is not None
    found: list[M2rlError] = []
    for part in part_names(registry, stage.merger, owner):
        if part in stage.search.grid:
            then = f"search the settings of one, as in '{part}.scale', and make a stage for each other"
            found.append(ConfigError(f"{owner}.grid.{part}: names another merger, which is no setting", then=then))
    for point in grid_points(stage.search.grid):
        with _gathered(found):
            use = candidate(registry, stage.merger, point, f"{owner}.grid")
            check_experts(registry.create("merger", use, f"{owner}.grid"), stage.experts, f"{owner}.grid")
    with _gathered(found):
        if stage.search.rounds:
            need_optuna(f"{owner}.rounds")
    if found:  # a value that stands in many points is told once
        raise joined(list({str(error): error for error in found}.values()), ConfigError)


def check_experts(merger: Merger, experts: Sequence[str], owner: str) -> None:
    """Ask a merger whether its settings fit ``experts``, named in their order.

    Raises:
        ConfigError: they do not; the merger's own words after ``owner``.
        StageError: the merger's check itself failed.
    """
    with boundary(f"merger '{merger.name}'", "checking its experts"):
        try:
            merger.check(experts)
        except ValueError as error:
            raise ConfigError(f"{owner}: {error}", found=", ".join(experts)) from error
