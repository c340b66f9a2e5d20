"""The study file: its sections as typed data, reading it, and checking what the types alone cannot say."""

from m2rl_core.config.blend import BlendSource
from m2rl_core.config.components import check_components, check_experts
from m2rl_core.config.paths import grounded, is_local, local_path
from m2rl_core.config.reading import load_study, settings
from m2rl_core.config.references import anchor, check_references, model_names, references, split_reference
from m2rl_core.config.sections import DomainSection, ModelSection, OptimSection, Section, Use
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
from m2rl_core.config.study import Study, schema
from m2rl_core.config.suites import suite_owners

__all__ = [
    "AnalyzeStage",
    "AnyStage",
    "BlendSource",
    "DomainSection",
    "EvalStage",
    "InitStage",
    "MergeStage",
    "ModelSection",
    "ModelStage",
    "OptimSection",
    "ReportStage",
    "RlStage",
    "Section",
    "SftStage",
    "Stage",
    "Study",
    "TrainStage",
    "Use",
    "anchor",
    "check_components",
    "check_experts",
    "check_references",
    "grounded",
    "is_local",
    "load_study",
    "local_path",
    "model_names",
    "references",
    "schema",
    "settings",
    "split_reference",
    "suite_owners",
]
