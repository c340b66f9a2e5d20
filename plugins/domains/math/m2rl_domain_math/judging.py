"""The modes of the verifier: whose rules decide whether a final answer is right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from m2rl_core.answers import UnreadableError, claims, otherwise
from m2rl_core.types import Reward
from m2rl_domain_math.compat import deepscaler, qwq
from m2rl_domain_math.matching import matches

__all__ = ["JUDGES", "Mode", "strict"]

Mode = Literal["strict", "qwq-compat", "deepscaler-compat"]


def strict(gold: str, answer: str) -> Reward:
    """1 where everything that ``answer`` claims is ``gold``, else 0. Several boxes may be one list."""
    try:
        stated, said = claims(answer)
        claimed = stated or said or otherwise(answer)
        if not claimed:
            return Reward(0.0, "no answer")
        values = [_percentage(gold, _value(gold, claim), answer) for claim in claimed]
        wrong = next((value for value in values if not matches(gold, value)), None)
        if wrong is None or (len(stated) > 1 and matches(gold, "; ".join(stated))):
            return Reward(1.0, "equal")
    except UnreadableError as error:
        return Reward(0.0, f"unreadable: {error}")
    return Reward(0.0, f"not the gold answer: {wrong[:80]}")


_SENTENCE = re.compile(
    r"(?P<name>(?:the|our)\b(?:[A-Za-z ,'-]|\$[A-Za-z(){}_ ]+\$)+)\s(?:is|are|equals)\s+(?P<value>\S.*)", re.IGNORECASE
)
_DOUBT = re.compile(r"\b(?:not|never|neither|no|none|or|guess|maybe|perhaps|possibly)\b|n't", re.IGNORECASE)


def _value(gold: str, claim: str) -> str:
    """What ``claim`` says where it is a whole sentence: 34 of "The largest $n$ is 34". No number stands before it."""
    sentence = _SENTENCE.fullmatch(claim)
    if not sentence or _DOUBT.search(sentence["name"]) or _SENTENCE.fullmatch(gold):
        return claim
    return sentence["value"]


_PERCENT = re.compile(r"(?:%|\bpercent|\bpct)\W*$")
_BEHIND = r"\{{\s*{}\s*\}}[\s$)\]\\]{{0,4}}(?:%|percent\b|pct\b)"


def _percentage(gold: str, claim: str, answer: str) -> str:
    r"""``claim`` with the percent sign behind its box, ``\boxed{28}\%``, which counts where the gold has one too."""
    if _PERCENT.search(gold) and not _PERCENT.search(claim) and re.search(_BEHIND.format(re.escape(claim)), answer):
        return f"{claim}\\%"
    return claim


JUDGES: Mapping[Mode, Callable[[str, str], Reward]] = {
    "strict": strict,
    "qwq-compat": qwq.judge,
    "deepscaler-compat": deepscaler.judge,
}
"""Mode → the judge of (gold, answer); neither is empty of gold, and the answer has no reasoning."""
