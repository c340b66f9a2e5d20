"""Self-verification: every model judges its own answers, from the outcome alone and from the whole process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_analyzer_self_verification.analyzer import SelfVerification
from m2rl_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from m2rl_core.interfaces import Analyzer

__all__ = ["SelfVerification"]


@hookimpl
def m2rl_analyzers() -> Iterable[type[Analyzer]]:
    return [SelfVerification]
