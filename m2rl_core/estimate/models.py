"""Which sizes the models of a study have, without loading one."""

from __future__ import annotations

import json
from pathlib import Path

from m2rl_core.config import (
    InitStage,
    MergeStage,
    ModelStage,
    Study,
    TrainStage,
    anchor,
    is_local,
    split_reference,
)
from m2rl_core.estimate.published import PUBLISHED
from m2rl_core.estimate.shape import Shape, of_config, of_init

__all__ = ["shape_of"]

CONFIG = "config.json"


def shape_of(study: Study, model: str) -> Shape | str:
    """Of a model that a stage names; a text says why it is not known.

    A stage that trains or merges has the shape of what it starts from.

    Args:
        study: with absolute paths (:func:`m2rl_core.config.grounded`) and right references.
        model: ``NAME`` or ``NAME@STEP``.
    """
    name = split_reference(model)[0]
    if name not in study.stages:
        assert study.model.base is not None, f"no stage and no base is called {name}"
        return _elsewhere(name, ModelStage(kind="model", path=study.model.base, revision=study.model.revision))
    match stage := study.stages[name]:
        case InitStage():
            return of_init(stage)
        case ModelStage():
            return _elsewhere(name, stage)
        case TrainStage():
            return shape_of(study, stage.init)
        case MergeStage():
            return shape_of(study, anchor(study, stage) or stage.experts[0])
    raise AssertionError(f"a stage of kind {stage.kind} makes no model")


def _elsewhere(name: str, stage: ModelStage) -> Shape | str:
    """Of a model trained elsewhere: from its folder, from the hub's cache on this machine, or of the known ones."""
    folder = Path(stage.path) if is_local(stage) else _cached(stage)
    if folder is None and stage.path in PUBLISHED:
        return PUBLISHED[stage.path]
    if folder is None:
        return (
            f"{stage.path} is unknown until downloaded: 'm2rl run STUDY --only {name}' fetches it, "
            f"'hf download {stage.path} {CONFIG} --revision {stage.revision}' its sizes alone"
        )
    try:
        found = of_config(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError) as error:
        found = f"its {CONFIG} cannot be read: {error}"
    return f"{stage.path} is unknown: {found}" if isinstance(found, str) else found


def _cached(stage: ModelStage) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(stage.path, CONFIG, revision=stage.revision)
    return Path(file).parent if isinstance(file, str) else None
