"""What ``m2rl check`` shows: tables for a person, a document for a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2rl_core.api import Check
    from m2rl_core.study import Node

__all__ = ["document", "nodes", "show_check"]


def show_check(found: Check) -> None:
    """Print the stages, the estimates and, of a study that is meant to be the paper's, where it differs."""
    from m2rl_core.cli.estimates import show_estimates, show_merges
    from m2rl_core.cli.tables import drifts, show, stages

    study = found.study
    show(stages(study, found.nodes))
    seeds = len(study.seeds or [study.seed])
    show_estimates(found.estimates, found.machine, seeds=seeds, stated=found.stated)
    show_merges(found.merges, found.machine)
    if study.reproduces == "paper":
        show(drifts(found.drift))


def document(found: Check) -> dict[str, Any]:
    """The same as plain data: bytes, seconds and hours as numbers."""
    return {
        "study": found.study.name,
        "machine": str(found.machine),
        "nodes": nodes(found.nodes),
        "estimates": [
            asdict(each)
            | {"memory": each.memory and {**asdict(each.memory), "total": each.memory.total}}
            | {"seconds": each.seconds and {**asdict(each.seconds), "total": each.seconds.total}}
            | {"device_hours": each.device_hours, "stated_gpu_hours": found.stated.get(each.stage)}
            for each in found.estimates
        ],
        "merges": [asdict(each) for each in found.merges],
        "drift": [{**each.claim._asdict(), "verdict": each.verdict, "found": each.found} for each in found.drift],
        "data": [str(error) for error in found.data],
    }


def nodes(found: Sequence[Node]) -> list[dict[str, Any]]:
    """A study's pieces of work as plain data."""
    return [
        {"id": n.id, "stage": n.stage, "kind": n.kind, "seed": n.seed, "inputs": n.inputs, "done": n.done}
        | {"folder": str(n.folder), "key": n.key}
        for n in found
    ]
