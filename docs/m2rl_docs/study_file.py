"""Everything that a study file may say, made from the types that read it."""

from __future__ import annotations

from m2rl_core import config
from m2rl_docs.settings import prose, settings_table

__all__ = ["study_file"]

SECTIONS = {
    "The study": config.Study,
    "`model`": config.ModelSection,
    "`domains.NAME`": config.DomainSection,
    "`optim` of a stage that trains": config.OptimSection,
    "`blend.NAME` of an sft stage": config.BlendSource,
    "`evidence` of a merge stage": config.EvidenceSection,
    "`search` of a merge stage": config.SearchSection,
}
STAGES = (
    config.ModelStage,
    config.InitStage,
    config.SftStage,
    config.RlStage,
    config.MergeStage,
    config.EvalStage,
    config.AnalyzeStage,
    config.ReportStage,
)


def study_file() -> str:
    """Markdown."""
    parts = []
    for title, model in SECTIONS.items():
        nested = frozenset({"config"}) if model is config.DomainSection else frozenset[str]()
        parts.append(f"## {title}\n\n{_said(model)}\n\n{settings_table(model, but=nested)}\n")
        if model is config.Study:
            parts += [_stage(stage) for stage in STAGES]
    return "\n".join(parts)


def _stage(model: type[config.Section]) -> str:
    kind = model.model_fields["kind"].annotation.__args__[0]  # type: ignore[union-attr]
    return f"## `kind: {kind}`\n\n{_said(model)}\n\n{settings_table(model, but=frozenset({'kind'}))}\n"


def _said(model: type[config.Section]) -> str:
    said = prose(" ".join((model.__doc__ or "").split()))
    said = said.partition(" — ")[2] or said
    return said[:1].upper() + said[1:]
