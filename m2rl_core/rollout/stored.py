"""Rollouts that an rl stage has stored, found from the model that it made, the newest first.

All of them answer prompts of the domains' ``train`` split: an rl stage draws from no other, so whatever is chosen or
measured by them has not seen a suite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from m2rl_core.errors import DataError
from m2rl_core.files import newest_first
from m2rl_core.rollout.records import from_record
from m2rl_core.run import ROLLOUTS
from m2rl_core.types import Sample

__all__ = ["latest_samples", "stored_records"]


def stored_records(model: Path) -> Iterator[dict[str, Any]]:
    """The records of what the stage that made ``model`` has drawn up to it, the newest first.

    Args:
        model: the stage's ``checkpoint/``, or ``kept/000200/`` for what its first 200 steps have drawn.

    Raises:
        DataError: that stage has stored none.
    """
    kept = model.parent.name == "kept"
    file = (model.parent.parent if kept else model.parent) / ROLLOUTS
    if not file.is_file():
        raise DataError(f"{model} has no rollouts beside it", found=f"no {file}")
    for record in newest_first(file):
        if not kept or record["step"] < int(model.name):
            yield record


def latest_samples(model: Path, prompts: int, domain: str | None = None) -> list[Sample]:
    """A sample of each of the ``prompts`` prompts that were drawn last, the newest first, right or wrong.

    One of a group, its first, because those of one prompt tell much the same; a group is passed over where nothing was
    sampled in that one, or the engine gave it up.

    Args:
        model: as for :func:`stored_records`.
        prompts: how many; a prompt that was drawn several times counts once.
        domain: count its prompts alone.

    Raises:
        DataError: fewer prompts are stored, or none at all.
    """
    found: dict[str, Sample] = {}
    for record in stored_records(model):
        if domain in (None, record["domain"]) and record["prompt"] not in found and _tells(record):
            found[record["prompt"]] = from_record(record)
        if len(found) == prompts:
            return list(found.values())
    of = f" of '{domain}'" if domain else ""
    what = f"the rollouts beside {model} hold too few sequences{of}"
    raise DataError(what, found=len(found), allowed=f"at least {prompts}, of a prompt each")


def _tells(record: Mapping[str, Any]) -> bool:
    return record["sample"] == 0 and record["finish"] != "abort" and any(record["sampled"])
