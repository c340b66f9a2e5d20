"""What the models of a study are for: the common start, experts of one domain, arms that combine several."""

from __future__ import annotations

from m2rl_core.config.references import split_reference
from m2rl_core.config.stages import AnyStage, MergeStage, ModelStage, RlStage, SftStage
from m2rl_core.config.study import Study
from m2rl_core.types import Way

__all__ = ["combines", "expert_domain", "is_cascade", "merges_some", "start_model"]


def combines(study: Study, model: str) -> Way | None:
    """How a model combines domains: several at once or in sequence (``mix``), by merging, or from teachers.

    ``None`` for a start, an expert, a cascade that goes on to further domains, a merge of some of the experts that
    another one merges (Table 6), or a kept step of these. Teachers that repair a cascade make it a distilled model; the
    cascade before that remains a mixed one.
    """
    stage = _stage(study, model)
    if isinstance(stage, MergeStage):
        return None if merges_some(study, model) else "merge"
    if isinstance(stage, SftStage) and stage.rollouts:
        return "distil"
    if isinstance(stage, RlStage) and stage.teachers:
        return "distil"
    return "mix" if len(_domains(study, model)) > 1 and not _goes_on(study, model) else None


def is_cascade(study: Study, model: str) -> bool:
    """True where reinforcement learning saw further domains in the stages before."""
    stage = _stage(study, model)
    return isinstance(stage, RlStage) and set(stage.domains) < _domains(study, model)


def merges_some(study: Study, model: str) -> bool:
    """True for a merge of some of the experts that another merge of the study has."""
    stage = _stage(study, model)
    others = [set(each.experts) for each in study.stages.values() if isinstance(each, MergeStage)]
    return isinstance(stage, MergeStage) and any(set(stage.experts) < other for other in others)


def expert_domain(study: Study, model: str) -> str | None:
    """The one domain that an expert was trained on."""
    stage = _stage(study, model)
    if isinstance(stage, RlStage) and stage.teachers:
        return None
    domains = _domains(study, model)
    return next(iter(domains)) if len(domains) == 1 else None


def start_model(study: Study) -> str | None:
    """The model that reinforcement learning departs from: the first ``init`` that is no rl stage; where nothing is
    trained, the first merge's base."""
    inits = [stage.init for stage in study.stages.values() if isinstance(stage, RlStage)]
    bases = [stage.base for stage in study.stages.values() if isinstance(stage, MergeStage) and stage.base is not None]
    return next((name for name in [*inits, *bases] if not isinstance(_stage(study, name), RlStage)), None)


def _goes_on(study: Study, model: str) -> bool:
    """True halfway in a cascade: a later stage adds further domains."""
    if not is_cascade(study, model):
        return False
    name, seen = split_reference(model)[0], _domains(study, model)
    later = [each for each, s in study.stages.items() if isinstance(s, RlStage) and split_reference(s.init)[0] == name]
    return any(seen < _domains(study, each) for each in later)


def _stage(study: Study, model: str) -> AnyStage | None:
    """The section of the stage that made a model; ``None`` for the study's base model."""
    return study.stages.get(split_reference(model)[0])


def _domains(study: Study, model: str) -> set[str]:
    """Domains that reinforcement learning has seen on the way to a model, by ``init`` only (a cascade)."""
    stage = _stage(study, model)
    if isinstance(stage, ModelStage):
        return set(stage.domains)
    return set(stage.domains) | _domains(study, stage.init) if isinstance(stage, RlStage) else set()
