"""An analyzer without a study of its own: over folders of models, with or without a study's domains and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m2rl_core.analyze.lab import Laboratory
from m2rl_core.analyze.stage import analyze
from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.errors import DataError
from m2rl_core.findings import read_findings
from m2rl_core.registry import Registry
from m2rl_core.run import NodeView, StageRun
from m2rl_core.seeding import derive
from m2rl_core.types import Findings

__all__ = ["BASE", "analyze_alone"]

BASE = "base"
STAGE = "analyze"
"""What the stage is called in messages."""


def analyze_alone(
    analyzer: Mapping[str, Any],
    folders: Mapping[str, Path],
    registry: Registry,
    out: Path,
    *,
    study: Study | None = None,
    nodes: Sequence[NodeView] = (),
    send: Callable[[Mapping[str, Any]], None] = lambda fields: None,
) -> Findings:
    """Run an analyzer over ``folders``, with files as of the stage ``analyze`` in ``out``.

    Without a study every model but the one called ``base``, which they are taken to have departed from, counts as the
    expert of a domain of its own name.

    Args:
        analyzer: ``{use: NAME, **config}``.
        study: whose domains, engine and stages the laboratory knows.
        nodes: finished nodes of the study, which hold scores and rollouts.
        send: takes progress.

    Raises:
        DataError: a folder holds no model; or as :func:`~m2rl_core.analyze.analyze`.
    """
    for name, folder in folders.items():
        if not (folder / "config.json").is_file():
            raise DataError(f"the model '{name}' is no Hugging Face folder", found=f"no {folder / 'config.json'}")
    stage = AnalyzeStage(kind="analyze", analyzer=dict(analyzer), models=list(folders))
    held = Study(name=STAGE, stages={STAGE: stage}) if study is None else study
    run = StageRun(
        name=STAGE,
        stage=stage,
        study=held.model_copy(update={"seeds": None, "stages": {**held.stages, STAGE: stage}}),
        seed=derive(held.seed, STAGE),
        folder=out,
        models=folders,
        registry=registry,
        nodes=nodes,
        send=send,
    )
    experts = {name: name for name in folders if name != BASE} if study is None else {}
    analyze(run, Laboratory(run, experts=experts, start=BASE if BASE in folders else None))
    run.close()
    return read_findings(out)
