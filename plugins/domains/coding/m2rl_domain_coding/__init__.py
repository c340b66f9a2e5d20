"""Coding: programs that a model wrote, run in a sandbox against unit tests that they never see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl
from m2rl_domain_coding.domain import Coding

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain

__all__ = ["Coding"]


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [Coding]
