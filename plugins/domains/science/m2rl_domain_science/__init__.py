"""Science: multiple-choice and free-form questions with one right answer, and a verifier that rewards no hedging."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl
from m2rl_domain_science.domain import Science
from m2rl_domain_science.judged import ScienceJudged

if TYPE_CHECKING:
    from m2rl_core.interfaces import Domain

__all__ = ["Science", "ScienceJudged"]


@hookimpl
def m2rl_domains() -> Iterable[type[Domain]]:
    return [Science, ScienceJudged]
