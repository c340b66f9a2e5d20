"""The stage ``kind: merge``."""

from __future__ import annotations

import os
from pathlib import Path

from m2rl_core.config import MergeStage
from m2rl_core.errors import ConfigError
from m2rl_core.merge.models import prepared
from m2rl_core.run import StageRun

MOST_THREADS = 8
"""With more than these, a disk is the limit."""


def usual_threads() -> int:
    """Some compute while others wait for the disk."""
    return min(MOST_THREADS, 2 * (os.cpu_count() or 1))


def merge(run: StageRun[MergeStage]) -> None:
    """Merge the stage's experts into ``checkpoint/``; its diagnostics are the one line of ``metrics.jsonl``.

    Raises:
        ConfigError: a merger of several outputs: a stage makes one model.
        DataError, RunError, StageError: as :func:`~m2rl_core.merge.merge_models`, or from gathering evidence.
    """
    stage = run.stage
    merger = run.registry.create("merger", stage.merger, f"stages.{run.name}.merger")
    if list(merger.outputs()) != [""]:
        raise ConfigError(f"stages.{run.name}.merger: a merge stage makes one model", found=", ".join(merger.outputs()))
    experts = {name: run.models[name] for name in stage.experts}
    base = None if stage.base is None else run.models[stage.base]
    evidence = _evidence(run, merger.needs)

    def report(done: int, total: int) -> None:
        run.report(step=done >> 20, steps=total >> 20, text=f"{total / 2**20:.0f} MiB of weights")

    metrics: dict[str, float] = {}

    def save(folder: Path) -> None:
        metrics.update(job.write({"": folder}).metrics)

    with run.clock("merge"), prepared(merger, base, experts, stage.dtype, usual_threads(), report, evidence) as job:
        job.need_room(run.folder / "checkpoint")
        run.finish(save)
    run.log(0, metrics)


def _evidence(run: StageRun[MergeStage], kinds: frozenset[str]) -> dict[str, Path] | None:
    """Expert → folder of its evidence, where the merger needs it and the stage says of what."""
    if not kinds or run.stage.evidence is None:
        return None
    from m2rl_core.merge.sequences import stage_evidence  # with transformers, which other merges do without

    return stage_evidence(run, run.stage.evidence, kinds)
