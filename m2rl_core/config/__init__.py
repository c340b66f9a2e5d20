"""The study file: its sections as typed data, reading it, and checking what the types alone cannot say."""

from m2rl_core.config.blend import BlendSource
from m2rl_core.config.components import check_components, check_experts
from m2rl_core.config.paths import grounded, is_local, local_path
from m2rl_core.config.reading import load_study, settings
from m2rl_core.config.references import anchor, check_references, model_names, references, split_reference
from m2rl_core.config.roles import combines, expert_domain, is_cascade, merges_some, start_model
from m2rl_core.config.schema import schema
from m2rl_core.config.search import (
    SearchSection,
    Setting,
    candidate,
    grid_points,
    need_optuna,
    part_names,
    settings_label,
    with_settings,
)
from m2rl_core.config.sections import DomainSection, EvidenceSection, ModelSection, OptimSection, Section, Use
from m2rl_core.config.stages import (
    AnalyzeStage,
    AnyStage,
    EvalStage,
    InitStage,
    MergeStage,
    ModelStage,
    ReportStage,
    RlStage,
    SftStage,
    Stage,
    TrainStage,
)
from m2rl_core.config.study import Study
from m2rl_core.config.suites import suite_owners
from m2rl_core.config.trackers import AnyTracker, TrackioSection, WandbSection, check_trackers
from m2rl_core.config.yaml_file import YamlFile

__all__ = [
    "AnalyzeStage",
    "AnyStage",
    "AnyTracker",
    "BlendSource",
    "DomainSection",
    "EvalStage",
    "EvidenceSection",
    "InitStage",
    "MergeStage",
    "ModelSection",
    "ModelStage",
    "OptimSection",
    "ReportStage",
    "RlStage",
    "SearchSection",
    "Section",
    "Setting",
    "SftStage",
    "Stage",
    "Study",
    "TrackioSection",
    "TrainStage",
    "Use",
    "WandbSection",
    "YamlFile",
    "anchor",
    "candidate",
    "check_components",
    "check_experts",
    "check_references",
    "check_trackers",
    "combines",
    "expert_domain",
    "grid_points",
    "grounded",
    "is_cascade",
    "is_local",
    "load_study",
    "local_path",
    "merges_some",
    "model_names",
    "need_optuna",
    "part_names",
    "references",
    "schema",
    "settings",
    "settings_label",
    "split_reference",
    "start_model",
    "suite_owners",
    "with_settings",
]
