"""The extension surface: what a plugin module may implement.

Hooks are called once, at start-up, and return *classes*; the training loop calls none but the observer
``m2rl_step_end``. A plugin marks its functions with :data:`hookimpl` and is found through the entry-point group
``m2rl``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from m2rl_core.interfaces import Advantage, Algorithm, Analyzer, Domain, Engine, Importance, Loss, Merger, Mixture

__all__ = [
    "PROJECT",
    "hookimpl",
    "hookspec",
    "m2rl_advantages",
    "m2rl_algorithms",
    "m2rl_analyzers",
    "m2rl_domains",
    "m2rl_engines",
    "m2rl_importances",
    "m2rl_losses",
    "m2rl_mergers",
    "m2rl_mixtures",
    "m2rl_step_end",
]

PROJECT = "m2rl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def m2rl_domains() -> Iterable[type[Domain]]:
    """Datasets with their verifiers, and environments where they are multi-turn."""
    return ()


@hookspec
def m2rl_engines() -> Iterable[type[Engine]]:
    """Rollout engines."""
    return ()


@hookspec
def m2rl_algorithms() -> Iterable[type[Algorithm]]:
    """Named compositions of an advantage, an importance rule, a loss and a reduction."""
    return ()


@hookspec
def m2rl_advantages() -> Iterable[type[Advantage]]:
    """From the rewards of a group to a credit per token."""
    return ()


@hookspec
def m2rl_importances() -> Iterable[type[Importance]]:
    """Corrections for tokens drawn by another policy or another program."""
    return ()


@hookspec
def m2rl_losses() -> Iterable[type[Loss]]:
    """Policy losses per token."""
    return ()


@hookspec
def m2rl_mixtures() -> Iterable[type[Mixture]]:
    """Shares of the domains in a step."""
    return ()


@hookspec
def m2rl_mergers() -> Iterable[type[Merger]]:
    """Ways to combine the weights of experts."""
    return ()


@hookspec
def m2rl_analyzers() -> Iterable[type[Analyzer]]:
    """Explanations of a finished study."""
    return ()


@hookspec
def m2rl_step_end(stage: str, step: int, metrics: Mapping[str, Any]) -> None:
    """Observe a finished training step."""
