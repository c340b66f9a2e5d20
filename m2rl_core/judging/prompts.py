"""The words in which a model is asked to judge an answer, and how its verdict is read.

They stand here and nowhere else: an analyzer asks with them, and demonstrations teach a small model to answer them.
The paper (section 3.6) contrasts two ways to ask and leaves the words open: *outcome*, where the judge sees the final
answer only, and *process*, where it sees the reasoning too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Formatter

from m2rl_core.rewards.reasoning import CLOSE, OPEN, split
from m2rl_core.types import Message

__all__ = ["OUTCOME", "PROCESS", "ask", "fields", "parts", "said", "verdict"]

OUTCOME = "{question}\n\nAnswer: {answer}\n\nIs it right? End with 'Verdict: Yes' or 'Verdict: No'."
PROCESS = (
    "{question}\n\nReasoning: {reasoning}\nAnswer: {answer}\n\nIs it right? End with 'Verdict: Yes' or 'Verdict: No'."
)
NOTHING = "(none)"
"""Stands for reasoning or an answer that is empty or missing."""

_VERDICT = re.compile(r"[\s*_`#]*verdict[\s*_`]*:[\s*_`]*(yes|no)[\s*_`.!]*", re.IGNORECASE)


def fields(template: str) -> set[str]:
    """Names in braces of a template.

    Raises:
        ValueError: braces that do not match, or a field that is more than a name.
    """
    found = set[str]()
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"'{{{name}}}' is no plain name; write literal braces twice")
        found.add(name)
    return found


def ask(template: str, question: Sequence[Message], reasoning: str, answer: str) -> Message:
    """The message that asks for a verdict; what is shown is not looked at again, whatever braces it holds."""
    asked = "\n\n".join(message["content"] for message in question)
    shown = template.format(question=asked, reasoning=reasoning.strip() or NOTHING, answer=answer.strip() or NOTHING)
    return Message(role="user", content=shown)


def parts(turn: str) -> tuple[str, str]:
    """(reasoning, answer) of an assistant turn without tags; a turn that never ends its reasoning has no answer."""
    answer, _ = split(turn, "optional")
    before, closed, _ = turn.partition(CLOSE)
    reasoning = before if closed or OPEN in turn else ""
    return reasoning.replace(OPEN, "").strip(), (answer or "").strip()


def said(right: bool) -> str:
    """How a judge ends."""
    return f"Verdict: {'Yes' if right else 'No'}"


def verdict(turn: str) -> bool | None:
    """Whether a judge calls the answer right; ``None`` where it does not say so clearly.

    Its last line after the reasoning must be the verdict and nothing else, emphasis aside, and no other line may be a
    verdict to the contrary: words inside a quoted answer do not count.
    """
    reply, _ = split(turn, "optional")
    lines = [line for line in (reply or "").splitlines() if line.strip()]
    found = [match and match[1].lower() == "yes" for match in map(_VERDICT.fullmatch, lines)]
    clear = bool(found) and found[-1] is not None and (not found[-1]) not in found
    return found[-1] if clear else None
