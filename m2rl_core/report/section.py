"""A section of the report: a heading, a few words, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from m2rl_core.report.evidence import FILES
from m2rl_core.types import Figure, Table


@dataclass(frozen=True, slots=True)
class Section:
    """The same content for every form of the report."""

    id: str
    """Anchor in the page."""
    title: str
    text: str = ""
    """How to read what follows, as plain text."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    """By file name, without ending, below ``tables/``."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By file name, without ending, below ``figures/``."""
    folded: bool = False
    """Shown on demand: long lists."""
    source: str = FILES
    """Where numbers lead that name no file of their own."""
