"""The stage ``kind: merge``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m2rl_core.config import MergeStage, split_reference
from m2rl_core.errors import ConfigError
from m2rl_core.interfaces import Merger
from m2rl_core.merge.job import Job
from m2rl_core.merge.models import prepared
from m2rl_core.run import StageRun

MOST_THREADS = 8
"""With more than these, a disk is the limit."""


def usual_threads() -> int:
    """One per core: more would compete for its cache."""
    return min(MOST_THREADS, os.cpu_count() or 1)


def merge(run: StageRun[MergeStage]) -> None:
    """Merge the stage's experts into ``checkpoint/``; its diagnostics are the one line of ``metrics.jsonl``.

    With ``search``, :func:`m2rl_core.merge.search.search` chooses the merger's settings first.

    Raises:
        ConfigError: a merger of several outputs: a stage makes one model.
        DataError, RunError, StageError: as :func:`~m2rl_core.merge.merge_models`, or from gathering evidence.
    """
    merger = run.registry.create("merger", run.stage.merger, f"stages.{run.name}.merger")
    if list(merger.outputs()) != [""]:
        raise ConfigError(f"stages.{run.name}.merger: a merge stage makes one model", found=", ".join(merger.outputs()))
    if run.stage.search is not None:
        from m2rl_core.merge.search import search  # opens models, which a merge does not

        search(run)
        return
    metrics: dict[str, float] = {}

    def save(folder: Path) -> None:
        metrics.update(job.write({"": folder}).metrics)

    with run.clock("merge"), prepared_job(run, merger) as job:
        job.need_room(run.folder / "checkpoint")
        run.finish(save)
    run.log(0, metrics)


@contextmanager
def prepared_job(run: StageRun[MergeStage], merger: Merger) -> Iterator[Job]:
    """A merge of the stage's models by ``merger``, ready to be written; its progress is the stage's."""
    stage = run.stage
    experts = {name: run.models[name] for name in stage.experts}
    base = None if stage.base is None else run.models[stage.base]
    evidence = _evidence(run, merger.needs)

    def report(done: int, total: int) -> None:
        run.report(step=done >> 20, steps=total >> 20, text=f"{total / 2**20:.0f} MiB of weights")

    called = {folder: name for name, folder in run.models.items()}
    called |= {folder: folder.name for folder in (evidence or {}).values()}
    threads, trained = usual_threads(), _trained(run)
    with prepared(merger, base, experts, stage.dtype, threads, report, evidence, trained=trained, called=called) as job:
        for sentence in job.unmoved:
            run.note(sentence)
        yield job


def _trained(run: StageRun[MergeStage]) -> list[str]:
    """Experts that the study itself has trained."""
    kinds = {node.stage: node.kind for node in run.nodes}
    return [name for name in run.stage.experts if kinds.get(split_reference(name)[0]) in ("sft", "rl")]


def _evidence(run: StageRun[MergeStage], kinds: frozenset[str]) -> dict[str, Path] | None:
    """Expert → folder of its evidence, where the merger needs it and the stage says of what."""
    if not kinds or run.stage.evidence is None:
        return None
    from m2rl_core.merge.sequences import stage_evidence  # with transformers, which other merges do without

    return stage_evidence(run, run.stage.evidence, kinds)
