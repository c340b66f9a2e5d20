"""Mathematics: problems with one right answer, and a verifier that is exact and cannot be talked round."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl
from m2rl_domain_math.domain import Math

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain

__all__ = ["Math"]


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [Math]
