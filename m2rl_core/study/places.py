"""Where the results of each node of a study lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from m2rl_core.config import EvalStage, Study, suite_owners
from m2rl_core.registry import Registry
from m2rl_core.study.graph import Node, expand

__all__ = ["placed"]


def placed(study: Study, registry: Registry, folder: Path) -> list[Node]:
    """All nodes of a study whose own folder is ``folder``, each after those that it needs; without their keys.

    Raises:
        ConfigError: an evaluation asks for a suite that nobody offers, or several domains do.
        ComponentError: a domain that is not there.
    """
    return [replace(node, folder=folder / node.id) for node in expand(study, _suites(study, registry))]


def _suites(study: Study, registry: Registry) -> dict[str, str]:
    """Every evaluation set of the study's domains → its domain; none where nothing is evaluated.

    Raises:
        ConfigError: an evaluation asks for one that nobody offers, or several domains do.
    """
    evaluations = {name: stage for name, stage in study.stages.items() if isinstance(stage, EvalStage)}
    domains = {
        name: registry.create("domain", {"use": section.use, **section.config}, f"domains.{name}")
        for name, section in (study.domains.items() if evaluations else ())
    }
    owners: dict[str, str] = {}
    for name, stage in evaluations.items():
        owners = suite_owners(domains, stage.suites, f"stages.{name}.suites")
    return owners
