"""Instruction following: prompts whose instructions a program can check, and the checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl
from m2rl_domain_if.domain import If

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain

__all__ = ["If"]


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [If]
