"""Tool use over several turns in a workplace, judged by the state that is left behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl
from m2rl_domain_agent.domain import Agent

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain

__all__ = ["Agent"]


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [Agent]
