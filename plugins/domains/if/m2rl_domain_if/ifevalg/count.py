"""How many different or small words there may be."""

from __future__ import annotations

import re

from m2rl_domain_if.arguments import Count
from m2rl_domain_if.folding import strictest
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.tokens import tokens

__all__: list[str] = []


@TABLE.add("count:lowercase_counting", N=Count)
@strictest
def lowercase_counting(text: str, N: int) -> bool:
    """At most so many words of small English letters only."""
    return len(re.findall(r"\b[a-z]+\b", text)) <= N


@TABLE.add("count:count_unique")
@strictest
def count_unique(text: str) -> bool:
    """No token twice, marks included; another case is another token."""
    found = tokens(text)
    return len(found) == len(set(found))
