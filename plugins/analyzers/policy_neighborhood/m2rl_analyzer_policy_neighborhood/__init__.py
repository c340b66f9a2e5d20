"""Policy neighborhoods: how far every expert is from a model that combines domains, on every domain's prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_analyzer_policy_neighborhood.analyzer import PolicyNeighborhood
from m2rl_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from m2rl_core.interfaces import Analyzer

__all__ = ["PolicyNeighborhood"]


@hookimpl
def m2rl_analyzers() -> Iterable[type[Analyzer]]:
    return [PolicyNeighborhood]
