"""Who a stage of a study is in the paper."""

from __future__ import annotations

from m2rl_core.config import (
    AnalyzeStage,
    EvalStage,
    MergeStage,
    ModelStage,
    RlStage,
    SftStage,
    Study,
    combines,
    expert_domain,
    merges_some,
    split_reference,
    start_model,
)
from m2rl_core.paper.claims import GPU_HOURS, Role
from m2rl_core.types import Way

__all__ = ["counterpart", "gpu_hours", "role_of"]

REFERENCE = "Qwen/Qwen3-4B"
"""The model that others have trained, of Table 8."""
ROLES: dict[Way, Role] = {"mix": "mixed", "merge": "merge", "distil": "distilled"}


def role_of(study: Study, name: str) -> Role | None:
    """Whose claims hold of a stage, if any."""
    match study.stages[name]:
        case RlStage():
            way = combines(study, name)
            return ROLES[way] if way else "expert" if expert_domain(study, name) else None
        case SftStage() | MergeStage() | EvalStage() | AnalyzeStage() as stage:
            return stage.kind
    return None


def counterpart(study: Study, model: str) -> str:
    """Who a model is in the paper's tables: ``base``, ``start``, an expert's domain (as its component is called), a
    merger, ``mixed``, ``distilled``, or Table 8's ``qwen3-4b``; empty for nobody."""
    stage = study.stages.get(split_reference(model)[0])
    if isinstance(stage, ModelStage) and stage.path == REFERENCE:
        return "qwen3-4b"
    if isinstance(stage, MergeStage):
        return "" if merges_some(study, model) else _merger(stage)
    if model == start_model(study):
        return "start"
    if (domain := expert_domain(study, model)) is not None:
        return study.domains[domain].use
    way = combines(study, model)
    return ROLES[way] if way else "base" if model == "base" else ""


def gpu_hours(study: Study) -> dict[str, float]:
    """Stage → its GPU hours in Table 2."""
    trained = {name: counterpart(study, name) for name, stage in study.stages.items() if isinstance(stage, RlStage)}
    return {name: GPU_HOURS[who] for name, who in trained.items() if who in GPU_HOURS}


def _merger(stage: MergeStage) -> str:
    """``dare+ties`` for a merger that hands on to another one."""
    use = str(stage.merger["use"])
    return f"dare+{stage.merger.get('then', 'task-arithmetic')}" if use == "dare" else use
