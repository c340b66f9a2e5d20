"""Environments of the verifiers package (https://github.com/PrimeIntellect-ai/verifiers) as domains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl
from m2rl_domain_verifiers.domain import Verifiers

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain

__all__ = ["Verifiers"]


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [Verifiers]
