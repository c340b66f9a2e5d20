"""Names within a study that must fit each other: models, kept steps, domains, teachers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from m2rl_core.config.sections import EvidenceSection
from m2rl_core.config.stages import (
    AnalyzeStage,
    AnyStage,
    EvalStage,
    InitStage,
    MergeStage,
    ModelStage,
    RlStage,
    SftStage,
    TrainStage,
)
from m2rl_core.config.study import Study
from m2rl_core.errors import ConfigError, nearest
from m2rl_core.redaction import secrets_in
from m2rl_core.validation import Keys, Problem

__all__ = ["anchor", "check_references", "model_names", "reference_problems", "references", "split_reference"]

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
    if isinstance(stage, SftStage):
        yield from ((("rollouts", domain), model) for domain, model in stage.rollouts.items())
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


def check_references(study: Study) -> None:
    """Check all names within a study.

    Raises:
        ConfigError: one line for each of :func:`reference_problems`.
    """
    if found := list(reference_problems(study)):
        raise ConfigError("\n".join(map(str, found)))


def reference_problems(study: Study) -> list[Problem]:
    """Unsafe names, secrets, models and domains that are not there, steps that are not kept, cycles, and training
    samples drawn from a cut distribution."""
    found = [*_names(study), *_secrets(study)]
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


def _secrets(study: Study) -> Iterator[Problem]:
    """A run's folder holds a copy of its study, which people hand on."""
    for path in secrets_in(study.model_dump(mode="json")):
        # a study file writes a domain's own keys beside ``use``
        path = (*path[:2], *path[3:]) if path[:1] == ("domains",) and path[2:3] == ("config",) else path
        yield Problem(
            path,
            "holds a secret, and a study is copied into its run's folder. Put it into an environment variable; "
            "a component that needs one takes the variable's name, e.g. 'api_key_env: JUDGE_API_KEY'.",
        )


def _stage(study: Study, stage: AnyStage) -> Iterator[Problem]:
    """Problems of one stage, with paths that start within it."""
    for key, model in references(stage):
        if model != "*" or not isinstance(stage, EvalStage | AnalyzeStage):
            yield from (Problem(key, text) for text in _reference(study, model))
    if isinstance(stage, ModelStage | InitStage | TrainStage):
        for domain in stage.domains:
            if domain not in study.domains:
                hint = f"{nearest(domain, study.domains)} Domains: {', '.join(study.domains) or 'none'}."
                yield Problem(("domains",), f"there is no domain '{domain}'.{hint}")
    if isinstance(stage, RlStage):
        yield from _rl(study, stage)
    if isinstance(stage, SftStage):
        yield from _rollouts(study, stage)
        unsafe = [name for name in stage.blend if not _SAFE.fullmatch(name)]
        yield from (Problem(("blend", name), f"cannot name a file. Allowed: {_SAFE_NAMES}.") for name in unsafe)
    if isinstance(stage, MergeStage) and stage.evidence is not None:
        yield from _evidence(study, stage, stage.evidence)
    if isinstance(stage, MergeStage) and stage.search:
        yield from _search(study, stage)
    for field in ("experts", "models", "domains", "suites"):
        names = getattr(stage, field, None)
        if names is not None and len(set(names)) < len(names):
            yield Problem((field,), "the same name stands here twice.")
        may_be_empty = field == "suites" or isinstance(stage, ModelStage) or getattr(stage, "blend", None)
        if names is not None and not names and not may_be_empty:
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


def _rl(study: Study, stage: RlStage) -> Iterator[Problem]:
    if stage.top_p < 1:
        text = f"would train on tokens of another distribution than the policy's, found {stage.top_p}. Allowed: 1."
        yield Problem(("top_p",), text)
    if stage.mixture is not None and isinstance(stage.domains, dict):
        text = f"would set aside the shares that 'domains' gives. Names alone will do: [{', '.join(stage.domains)}]."
        yield Problem(("mixture",), text)
    for domain in stage.teachers:
        if domain not in stage.domains:
            yield Problem(("teachers", domain), f"is no domain of this stage. Allowed: {', '.join(stage.domains)}.")
    for domain, model in stage.teachers.items():
        teacher, student = _origin(study, model), _origin(study, stage.init)
        if teacher != student and {type(study.stages.get(name)) for name in (teacher, student)} == {InitStage}:
            text = f"'{model}' reads the tokens of '{teacher}', but '{stage.init}' those of '{student}'."
            yield Problem(("teachers", domain), text)


def _origin(study: Study, model: str) -> str:
    """The model that ``model`` descends from, whose tokens it reads; as far as the names can be followed."""
    seen: list[str] = []
    while (name := model.partition("@")[0]) not in seen:
        seen.append(name)
        stage = study.stages.get(name)
        if isinstance(stage, TrainStage):
            model = stage.init
        elif isinstance(stage, MergeStage) and (base := anchor(study, stage)):
            model = base
    return seen[-1]


def _rollouts(study: Study, stage: SftStage) -> Iterator[Problem]:
    for domain, model in stage.rollouts.items():
        maker = study.stages.get(model)
        if domain not in stage.domains:
            yield Problem(("rollouts", domain), f"is no domain of this stage. Allowed: {', '.join(stage.domains)}.")
        elif not (isinstance(maker, RlStage) and domain in maker.domains):
            fit = [name for name, s in study.stages.items() if isinstance(s, RlStage) and domain in s.domains]
            text = f"'{model}' is no rl stage that samples '{domain}'. Allowed: {', '.join(fit) or 'none here'}."
            yield Problem(("rollouts", domain), text)
        elif _origin(study, model) != _origin(study, stage.init):
            yield Problem(("rollouts", domain), f"'{model}' reads other tokens than '{stage.init}'.")


def _evidence(study: Study, stage: MergeStage, given: EvidenceSection) -> Iterator[Problem]:
    for name in given.conversations:
        if name not in stage.experts:
            text = f"is no expert of this stage. Allowed: {', '.join(stage.experts)}."
            yield Problem(("evidence", "conversations", name), text)
    for name in stage.experts:
        if name not in given.conversations and not isinstance(study.stages.get(name.partition("@")[0]), RlStage):
            text = f"'{name}' is no rl stage, whose rollouts would do. Name a file, as in {{{name}: {name}.jsonl}}."
            yield Problem(("evidence", "conversations"), text)


def _search(study: Study, stage: MergeStage) -> Iterator[Problem]:
    """Only rl stages store rollouts, and they draw from ``train`` alone: a search cannot see what is evaluated."""
    for model in stage.experts:
        if not isinstance(study.stages.get(model.partition("@")[0]), RlStage):
            text = f"scores candidates on rollouts that the experts' rl stages have stored, and '{model}' is none."
            yield Problem(("search",), text)


def _cycle(study: Study) -> Iterator[Problem]:
    graph = {name: {split_reference(m)[0] for _, m in references(s)} for name, s in study.stages.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        path = error.args[1]
        yield Problem(("stages", path[0]), f"{' needs '.join(reversed(path))}: a cycle.")
