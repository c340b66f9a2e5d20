"""Disk and time of every merge stage."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from m2rl_core.config import MergeStage, ModelStage, Study, TrainStage, anchor, is_local, split_reference
from m2rl_core.estimate.device import Machine
from m2rl_core.estimate.models import CONFIG, shape_of
from m2rl_core.interfaces import Merger
from m2rl_core.registry import Registry

__all__ = ["MergeCost", "merge_costs"]

SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number."""


@dataclass(frozen=True, slots=True)
class MergeCost:
    """Of one merge stage."""

    stage: str
    models: int
    """That are read: the experts, and the anchor where there is one."""
    unknown: str = ""
    """Why there is nothing else."""
    readings: int = 0
    """Of all the models' weights; one of a single tensor after another finds it in the page cache, and still counts."""
    read: int = 0
    """In one reading [bytes]."""
    written: int = 0
    """The result's weights [bytes]."""
    most: int = 0
    """On the disk at a time [bytes]: the result, or candidates of a search."""
    seconds: float = 0
    """Of the merge; scoring a search's candidates is not in it."""


def merge_costs(study: Study, registry: Registry, machine: Machine) -> list[MergeCost]:
    """What every merge stage reads, writes and takes.

    Args:
        study: checked and grounded.
        machine: whose ``reading`` is the rate; one process merges, on the host.
    """
    stages = ((name, stage) for name, stage in study.stages.items() if isinstance(stage, MergeStage))
    return [_cost(study, registry, machine, name, stage) for name, stage in stages]


def _cost(study: Study, registry: Registry, machine: Machine, name: str, stage: MergeStage) -> MergeCost:
    base = anchor(study, stage)
    models = [*stage.experts, *([] if base is None else [base])]
    shape = shape_of(study, models[-1])
    if isinstance(shape, str):
        return MergeCost(name, len(models), shape)
    size = SIZES[stage.dtype] if stage.dtype else _stored(study, base or stage.experts[0])
    read = shape.parameters * sum(_stored(study, model) for model in models)
    written = shape.parameters * size
    merges, most = 1, 1
    if stage.search is not None:  # at the end the best is made once more, beside the stage's own settings
        most = min(stage.search.batch, stage.search.candidates)
        merges, most = math.ceil(stage.search.candidates / stage.search.batch) + 1, max(2, most)
    merger: Merger = registry.create("merger", stage.merger, f"stages.{name}.merger")
    readings = merges * (len(merger.passes()) + 1)
    return MergeCost(
        name, len(models), "", readings, read, written, most * written, readings * read / machine.device.reading
    )


def _stored(study: Study, model: str) -> int:
    """Bytes of one of its numbers on the disk: float32 where a stage trains it, else what its configuration says."""
    name = split_reference(model)[0]
    match stage := study.stages.get(name):
        case MergeStage(dtype=str()):
            return SIZES[str(stage.dtype)]
        case MergeStage():
            return _stored(study, anchor(study, stage) or stage.experts[0])
        case TrainStage():
            return SIZES["float32"]
        case ModelStage() if is_local(stage):
            return _configured(Path(stage.path))
        case ModelStage() | None:
            return SIZES["bfloat16"]  # as models are published
    return SIZES["float32"]  # a fresh model


def _configured(folder: Path) -> int:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return SIZES["bfloat16"]
    return SIZES.get(str(config.get("dtype") or config.get("torch_dtype")), SIZES["bfloat16"])
