"""Findings of the paper and what it takes to test them, for those that a study does not test."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

__all__ = ["PLACES", "Untested", "untested"]


class Untested(NamedTuple):
    """A finding that nothing in this study has tested."""

    statement: str
    section: str
    takes: str
    """What would test it, or why nothing does."""


SCORES = {
    "Mixing does as well as experts that are merged": "a mixed and a merged model, evaluated",
    "Distilling experts does as well as merging them": "a distilled and a merged model, evaluated",
    "The mixed run takes less device time than the experts together": "a mixed run and experts of all of its domains",
    "Mixing costs no domain its expert's performance: there is little interference": "a mixed model and experts",
    "Merging weights keeps the experts' performance in their own domains": "a merged model and its experts",
    "Each expert is the best of the experts in its own domain": "two experts, evaluated",
    "The reasoning domains improve each other": "experts of two of math, coding and science",
    "Instruction following improves the reasoning domains": "an expert of if, and suites of math, coding or science",
    "The other domains neither help nor harm the agent's tasks": "experts of agent and of another domain",
}
"""Statement of :mod:`m2rl_core.report.core_claims` → what it takes."""
NEVER = {
    "Merging methods seesaw: which is best depends on the suite": (
        "no test here: that several merges are each the best somewhere happens by chance as well; see Merges compared"
    ),
}
ANALYZERS = {
    ("weight-shift", "3.3"): (
        "A minority of the weights changes: about 30% on average",
        "The weights that different domains change overlap more than random masks do",
        "Shifts of different domains point the same way where they overlap",
        "Reasoning domains' shifts are more alike to each other than to those of the other domains",
    ),
    ("policy-neighborhood", "3.4"): (
        "KL from a domain's expert does not correlate with the change of performance in that domain",
        "Experts of other domains are neighbours, and being one is asymmetric",
        "Merging an expert with a policy neighbour gains more in its domain than with another expert",
    ),
    ("gain-consistency", "3.5"): (
        "Combined models gain on the prompts on which the experts gain",
        "Gains are most consistent in math",
        "Outside math, combined models also gain where no expert does",
        "Merged models' gains are more consistent with the experts' than those of mixed and distilled models",
    ),
    ("self-verification", "3.6"): (
        "Judging by outcome goes with generation, judging the process against it",
        "Where answers are derived, process verification beats outcome verification; where they obey constraints, less",
        "The agent's expert is the best process judge among the experts",
        "Process verification collapses in the mixed model, not in merged and distilled ones",
    ),
}
"""(analyzer, section) → what it tests."""
PLACES = {
    "weight-shift": "section 3.3, Table 5 and Figure 3 of the paper",
    "policy-neighborhood": "section 3.4, Table 6 and Figure 4 of the paper",
    "gain-consistency": "section 3.5 and Figure 5 of the paper",
    "self-verification": "section 3.6, Table 7 and Figures 6 to 8 of the paper",
}
"""Analyzer → where in the paper its tables and figures are."""


def untested(statements: Collection[str], analyzers: Collection[str], planned: Collection[str]) -> Iterator[Untested]:
    """What is left.

    Args:
        statements: tested by the report itself.
        analyzers: with findings.
        planned: analyzers that the study names.
    """
    yield from (Untested(text, "3.2", f"takes {takes}") for text, takes in SCORES.items() if text not in statements)
    yield from (Untested(text, "3.2", why) for text, why in NEVER.items())
    for (analyzer, section), texts in ANALYZERS.items():
        if analyzer not in analyzers:
            state = "not finished" if analyzer in planned else "not in this study"
            yield from (Untested(text, section, f"takes the analyzer {analyzer}, {state}") for text in texts)
