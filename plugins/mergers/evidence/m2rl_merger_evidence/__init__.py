"""Mergers that weigh what each expert relies on: Fisher and RegMean by what it does with data, WUDI by its weights."""

from __future__ import annotations

from collections.abc import Iterable

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import Merger
from m2rl_merger_evidence.fisher import Fisher
from m2rl_merger_evidence.regmean import RegMean
from m2rl_merger_evidence.wudi import Wudi

__all__ = ["Fisher", "RegMean", "Wudi"]


@hookimpl
def m2rl_mergers() -> Iterable[type[Merger]]:
    return [Fisher, RegMean, Wudi]
