"""What the types of a study cannot say: names that must fit each other, and components that must exist.

:func:`check_references` needs the study alone; :func:`check_components` needs the plugins too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter

from m2rl_core.composition import compose
from m2rl_core.config.sections import (
    AnalyzeStage,
    AnyStage,
    EvalStage,
    InitStage,
    MergeStage,
    ModelStage,
    RlStage,
    Study,
    TrainStage,
)
from m2rl_core.config.suites import suite_owners
from m2rl_core.errors import ConfigError, DataError, UserError, boundary, nearest
from m2rl_core.interfaces import Domain, Merger
from m2rl_core.plugins import Registry
from m2rl_core.registry import use_of
from m2rl_core.validation import Keys, Problem

__all__ = [
    "anchor",
    "check_components",
    "check_experts",
    "check_references",
    "model_names",
    "references",
    "split_reference",
]

BASE = "base"
"""The name of ``model.base`` among the models of a study."""
_SAFE = re.compile(r"(?!seed-\d+$|study\.yaml$)[A-Za-z0-9_][A-Za-z0-9._-]*")
_SAFE_NAMES = "letters, digits, '_', '.' and '-', but not 'seed-NUMBER' or 'study.yaml', and no '.' or '-' at the start"


def model_names(study: Study) -> list[str]:
    """The models of a study that a stage may name: ``base`` where there is one, then those of its stages."""
    makers = ModelStage | InitStage | TrainStage | MergeStage
    return [BASE] * bool(study.model.base) + [name for name, s in study.stages.items() if isinstance(s, makers)]


def split_reference(reference: str) -> tuple[str, int | None]:
    """``"math@200"`` as ``("math", 200)``, ``"math"`` as ``("math", None)``.

    Raises:
        ValueError: what follows ``@`` is no step.
    """
    name, at, step = reference.partition("@")
    if at and not re.fullmatch(r"[1-9][0-9]*", step):
        raise ValueError(f"'{step}' is no step")
    return name, int(step) if at else None


def references(stage: AnyStage) -> Iterator[tuple[Keys, str]]:
    """(path within the stage, model that it names) for every model that a stage reads; ``*`` stays ``*``."""
    if isinstance(stage, TrainStage):
        yield ("init",), stage.init
    if isinstance(stage, RlStage):
        yield from ((("teachers", domain), model) for domain, model in stage.teachers.items())
    if isinstance(stage, MergeStage):
        yield from [(("base",), stage.base)] if stage.base else []
        yield from ((("experts", i), model) for i, model in enumerate(stage.experts))
    if isinstance(stage, EvalStage | AnalyzeStage):
        yield from ((("models", i), model) for i, model in enumerate(stage.models))


def anchor(study: Study, stage: MergeStage) -> str | None:
    """The model that a merge departs from: its ``base`` or else the experts' common ``init``, if they have one."""
    if stage.base:
        return stage.base
    experts = (study.stages.get(split_reference(name)[0]) for name in stage.experts)
    inits = {expert.init if isinstance(expert, TrainStage) else None for expert in experts}
    return inits.pop() if len(inits) == 1 else None


# ── within the study ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_references(study: Study) -> None:
    """Check all names within a study.

    Raises:
        ConfigError: one line for each of :func:`reference_problems`.
    """
    if found := list(reference_problems(study)):
        raise ConfigError("\n".join(map(str, found)))


def reference_problems(study: Study) -> list[Problem]:
    """Unsafe names, models and domains that are not there, steps that are not kept, cycles, and training samples drawn
    from a cut distribution."""
    found = list(_names(study))
    for name, stage in study.stages.items():
        found += [Problem(("stages", name, *problem.path), problem.text) for problem in _stage(study, stage)]
    return found or list(_cycle(study))


def _names(study: Study) -> Iterator[Problem]:
    for section in ("stages", "domains"):
        for name in getattr(study, section):
            if not _SAFE.fullmatch(name):
                yield Problem((section, name), f"cannot name a folder. Allowed: {_SAFE_NAMES}.")
    if BASE in study.stages and study.model.base:
        yield Problem(("stages", BASE), "the name is taken by model.base.")
    if not study.stages:
        yield Problem(("stages",), "there are none.")


def _stage(study: Study, stage: AnyStage) -> Iterator[Problem]:
    """Problems of one stage, with paths that start within it."""
    for key, model in references(stage):
        if model != "*" or not isinstance(stage, EvalStage | AnalyzeStage):
            yield from (Problem(key, text) for text in _reference(study, model))
    if isinstance(stage, InitStage | TrainStage):
        for domain in stage.domains:
            if domain not in study.domains:
                hint = f"{nearest(domain, study.domains)} Domains: {', '.join(study.domains) or 'none'}."
                yield Problem(("domains",), f"there is no domain '{domain}'.{hint}")
    if isinstance(stage, RlStage):
        yield from _rl(stage)
    for field in ("experts", "models", "domains", "suites"):
        names = getattr(stage, field, None)
        if names is not None and len(set(names)) < len(names):
            yield Problem((field,), "the same name stands here twice.")
        if names is not None and not names and field != "suites":
            yield Problem((field,), "there are none.")


def _reference(study: Study, reference: str) -> Iterator[str]:
    known = model_names(study)
    try:
        name, step = split_reference(reference)
    except ValueError as error:
        yield f"{error}, in '{reference}'. A step of an rl stage reads STAGE@STEP."
        return
    stage = study.stages.get(name)
    if name not in known:
        what = f"stage '{name}' ({stage.kind}) makes no model." if stage else f"there is no model '{name}'."
        yield f"{what}{nearest(name, known)} Models: {', '.join(known) or 'none'}."
    elif step is None:
        return
    elif not isinstance(stage, RlStage):
        yield f"only rl stages keep steps, and '{name}' is none."
    elif stage.keep_every is None:
        yield f"'{name}' keeps no steps. Set stages.{name}.keep_every."
    elif step % stage.keep_every or step > stage.steps:
        yield f"'{name}' keeps every {stage.keep_every} of {stage.steps} steps, and {step} is none of them."


def _rl(stage: RlStage) -> Iterator[Problem]:
    if stage.top_p < 1:
        text = f"would train on tokens of another distribution than the policy's, found {stage.top_p}. Allowed: 1."
        yield Problem(("top_p",), text)
    for domain in stage.teachers:
        if domain not in stage.domains:
            yield Problem(("teachers", domain), f"is no domain of this stage. Allowed: {', '.join(stage.domains)}.")


def _cycle(study: Study) -> Iterator[Problem]:
    graph = {name: {split_reference(m)[0] for _, m in references(s)} for name, s in study.stages.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path = error.args[1]
        yield Problem(("stages", path[0]), f"{' needs '.join(reversed(path))}: a cycle.")


# ── against the plugins ──────────────────────────────────────────────────────────────────────────────────────────────


def check_components(study: Study, registry: Registry) -> None:
    """Check that every component of a study exists, takes its configuration, and gets what it needs.

    Domains, algorithms and their parts, mergers and analyzers are built; an engine is not. Domains that are trained on
    draw their first prompt, because they open their files only then.

    Args:
        study: with the paths of its domains' files made absolute (:func:`m2rl_core.config.grounded`), or else they
            start from the working directory.

    Raises:
        ComponentError, ConfigError, DataError: the problem, if there is one.
        ConfigError: one line per problem, if there are several.
    """
    found: list[UserError] = []
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
    for name, where in _trained_on(study).items():
        if name in domains:
            with _gathered(found):
                _first_prompt(name, domains[name], where)
    for name, stage in study.stages.items():
        with _gathered(found):
            _components(study, registry, f"stages.{name}", stage)
        if isinstance(stage, EvalStage) and len(domains) == len(study.domains):
            with _gathered(found):
                suite_owners(domains, stage.suites, f"stages.{name}.suites")
    if len(found) == 1:
        raise found[0]
    if found:
        raise ConfigError("\n".join(map(str, found)))


@contextmanager
def _gathered(found: list[UserError]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        found.append(error)


def _trained_on(study: Study) -> dict[str, str]:
    """Domains of the study that rl stages draw prompts from → the place of the first that does, for messages."""
    found: dict[str, str] = {}
    for name, stage in study.stages.items():
        for domain in stage.domains if isinstance(stage, RlStage) else ():
            found.setdefault(domain, f"stages.{name}.domains")
    return found


def _first_prompt(name: str, domain: Domain, where: str) -> None:
    """Draw the first training prompt of a domain.

    Raises:
        DataError: there is none, e.g. because its file is not there.
        StageError: the domain's own code failed.
    """
    try:
        with boundary(f"domain '{name}'", "drawing its first training prompt"):
            first = next(iter(domain.prompts("train")), None)
    except UserError as error:
        raise DataError(f"{where}: domain '{name}': {error}") from error
    if first is None:
        raise DataError(f"{where}: domain '{name}' has no training prompts")


def _components(study: Study, registry: Registry, owner: str, stage: AnyStage) -> None:
    if isinstance(stage, RlStage):
        _algorithm(registry, stage, owner)
        if stage.mixture is not None:
            registry.configure("mixture", stage.mixture, f"{owner}.mixture")
    elif isinstance(stage, MergeStage):
        _merger(study, registry, stage, owner)
    elif isinstance(stage, AnalyzeStage):
        registry.create("analyzer", stage.analyzer, f"{owner}.analyzer")


def _algorithm(registry: Registry, stage: RlStage, owner: str) -> None:
    """Check an algorithm with its parts, and that there are teachers exactly where they are needed."""
    taught = compose(registry, stage.algorithm, f"{owner}.algorithm").taught
    name = use_of(stage.algorithm)[0]
    if taught and (untaught := [domain for domain in stage.domains if domain not in stage.teachers]):
        raise ConfigError(f"{owner}.teachers: algorithm '{name}' needs a teacher for {', '.join(untaught)}")
    if stage.teachers and not taught:
        raise ConfigError(f"{owner}.teachers: algorithm '{name}' learns from no teacher")


def _merger(study: Study, registry: Registry, stage: MergeStage, owner: str) -> None:
    """Check a merger, that its settings fit the experts, and that there is a base where it is needed."""
    merger = registry.create("merger", stage.merger, f"{owner}.merger")
    check_experts(merger, stage.experts, f"{owner}.merger")
    if merger.needs_base and anchor(study, stage) is None:
        raise ConfigError(
            f"{owner}.base: '{merger.name}' needs the model that the experts departed from; they share no 'init'",
            allowed=model_names(study),
        )


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
