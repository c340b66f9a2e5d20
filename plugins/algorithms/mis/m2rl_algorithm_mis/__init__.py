"""Importance rules for what the sampler and the trainer disagree about: masked and truncated importance sampling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from m2rl_core.interfaces import Importance


@hookimpl
def m2rl_importances() -> Iterable[type[Importance]]:
    from m2rl_algorithm_mis.rules import Mis, Tis

    return [Mis, Tis]
