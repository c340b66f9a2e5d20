"""Mergers for task vectors of which only a part counts: Model Breadcrumbs, DELLA, RAM and MagMax."""

from __future__ import annotations

from collections.abc import Iterable

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import Merger
from m2rl_merger_sparse.breadcrumbs import Breadcrumbs
from m2rl_merger_sparse.della import Della
from m2rl_merger_sparse.magmax import MagMax
from m2rl_merger_sparse.ram import Ram

__all__ = ["Breadcrumbs", "Della", "MagMax", "Ram", "m2rl_mergers"]


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Breadcrumbs, Della, Ram, MagMax]
