"""What a stage's run knows of where its model comes from, for the model's card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m2rl_core.config import AnyStage, MergeStage, references, split_reference
from m2rl_core.model_card import Made
from m2rl_core.registry import KINDS

if TYPE_CHECKING:
    from m2rl_core.plugins import Registry
    from m2rl_core.run.stage_run import NodeView, StageRun

__all__ = ["made"]


def made(run: StageRun[Any], step: int | None) -> Made:
    """How the model of ``run`` came about; with ``step``, one that it keeps on its way."""
    return Made(
        study=run.study.name,
        stage=run.name,
        kind=run.stage.kind,
        key=run.key,
        covered=run.covered,
        step=step,
        published=_published(run.stage, run.nodes),
        plugins=dict(sorted(_distributions(run.covered.get("components", {}), run.registry))),
    )


def _published(stage: AnyStage, nodes: Sequence[NodeView]) -> list[str]:
    """The hub's models at the end of the line of models that ``stage`` starts from; teachers are in no such line."""
    names = [split_reference(name)[0] for _, name in references(stage)]
    starts = names if isinstance(stage, MergeStage) else names[:1]
    ids, by_stage = {node.id: node for node in nodes}, {node.stage: node for node in nodes}
    found = []
    for node in (by_stage[name] for name in starts if name in by_stage):
        while node.inputs:
            node = ids[node.inputs[0]]
        found += [node.hub] if node.hub else []
    return list(dict.fromkeys(found))


def _distributions(components: Mapping[str, Mapping[str, Any]], registry: Registry) -> Iterator[tuple[str, str]]:
    """(distribution, version) of the plugins behind what a key covers."""
    for label, part in components.items():
        kind = next(kind for kind in KINDS if kind == label.split()[0])
        entry = registry.lookup(kind, part["use"])
        if entry.version:
            yield entry.distribution, entry.version
