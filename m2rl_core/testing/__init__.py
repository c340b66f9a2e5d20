"""Helpers for tests of m2rl and of its plugins: one contract per kind of component, to be subclassed.

A name is imported when it is first asked for, because mergers need torch and a domain's tests should not wait for it.
The fixtures are in :mod:`.fixtures`, which pytest loads by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2rl_core.testing.algorithm import AlgorithmContract
    from m2rl_core.testing.analyzer import AnalyzerContract, bare_lab
    from m2rl_core.testing.domain import DomainContract
    from m2rl_core.testing.merger import MergerContract, merge_tensors

__all__ = ["AlgorithmContract", "AnalyzerContract", "DomainContract", "MergerContract", "bare_lab", "merge_tensors"]

_HOMES = {
    "AlgorithmContract": "algorithm",
    "AnalyzerContract": "analyzer",
    "DomainContract": "domain",
    "MergerContract": "merger",
    "bare_lab": "analyzer",
    "merge_tensors": "merger",
}
"""Public name → module of this package that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
