"""Everything that a study file may say, made from the types that read it."""

from __future__ import annotations

from m2rl_core import config
from m2rl_core.describe import markdown, settings
from m2rl_docs.tables import settings_table

__all__ = ["study_file"]

SECTIONS: dict[str, type[config.Section]] = {
    "`model`": config.ModelSection,
    "`domains.NAME`": config.DomainSection,
    "`blend.NAME` of an sft stage": config.BlendSource,
    "`evidence` of a merge stage": config.EvidenceSection,
    "`search` of a merge stage": config.SearchSection,
    "`trackers: [{use: trackio}]`": config.TrackioSection,
    "`trackers: [{use: wandb}]`": config.WandbSection,
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
APART = ("model.", "evidence.", "search.")
"""Settings that have a section to themselves."""
SAID = ("kind", "config")
"""Keys that the section's title says, or that no study writes."""


def study_file() -> str:
    """Markdown."""
    stages = {f"`kind: {_kind(stage)}`": stage for stage in STAGES}
    return "\n".join(_section(*each) for each in {"The study": config.Study, **stages, **SECTIONS}.items())


def _kind(stage: type[config.Section]) -> str:
    return str(stage.model_fields["kind"].annotation.__args__[0])  # type: ignore[union-attr]


def _section(title: str, model: type[config.Section]) -> str:
    shown = [each for each in settings(model) if each.name not in SAID and not each.name.startswith(APART)]
    said = " ".join(markdown(model.__doc__).split())
    said = said.partition(" — ")[2] or said
    return f"## {title}\n\n{said[:1].upper()}{said[1:]}\n\n{settings_table(shown)}\n"
