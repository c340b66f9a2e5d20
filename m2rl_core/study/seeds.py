"""Several runs of one study, each with other seeds, read as one run with all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from m2rl_core.config import Study, check_references
from m2rl_core.errors import RunError
from m2rl_core.plugins import load_plugins
from m2rl_core.study.folders import study_in
from m2rl_core.study.graph import Node
from m2rl_core.study.places import placed

__all__ = ["one_study"]

FREE = {"name", "seed", "seeds"}
"""Settings in which runs of one study may differ."""


def one_study(runs: Sequence[Path]) -> tuple[Study, list[Node]]:
    """The study of all ``runs``, with all of their seeds, and the nodes of all.

    Args:
        runs: folders of studies, at least one.

    Raises:
        RunError: a folder is no study's, or the runs differ in more than name and seeds, or share a seed.
        ConfigError: names that are no folder's, or do not fit each other.
        ComponentError: as :func:`m2rl_core.study.placed`.
    """
    first, *others = (studies := {run: study_in(run) for run in runs})
    for study in studies.values():
        check_references(study)
    for other in others:
        _refuse_another(first, studies[first], other, studies[other])
    owners: dict[int, Path] = {}
    for run, study in studies.items():
        for seed in study.seeds or [study.seed]:
            if seed in owners:
                raise RunError(f"{owners[seed]} and {run} have the same seed", found=seed, then="name one of them")
            owners[seed] = run
    study = studies[first] if not others else studies[first].model_copy(update={"seeds": list(owners)})
    registry = load_plugins(study.plugins)
    return study, [node for run, each in studies.items() for node in placed(each, registry, run.absolute())]


def _refuse_another(first: Path, study: Study, run: Path, other: Study) -> None:
    left, right = (each.model_dump(mode="json", exclude=FREE) for each in (study, other))
    for path, *values in _differences(left, right):
        raise RunError(
            f"{first} and {run} are not runs of one study: they differ in '{path}'",
            found=" and ".join(map(str, values)),
            allowed=f"other values of {', '.join(sorted(FREE))} only",
            then="report each by itself",
        )


def _differences(left: Any, right: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, value, other value) of everything that differs."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in {**left, **right}:
            yield from _differences(left.get(key), right.get(key), f"{path}.{key}".lstrip("."))
    elif left != right:
        yield path, left, right
