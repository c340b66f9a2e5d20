"""The paper's format reward as a gate: what a response says after its reasoning, or why it is refused.

Section 2 of the paper rewards "the structural segregation of the chain-of-thought reasoning from the terminal answer"
and leaves the rule open. Here a response is graded on what follows exactly one ``</think>``; truncated reasoning is
wrong. The opening tag may be missing, since chat templates may end a prompt with it.
"""

from __future__ import annotations

from m2rl_core.types import Reasoning

__all__ = ["split"]

OPEN, CLOSE = "<think>", "</think>"
ENDINGS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "</s>")
"""End-of-turn tokens of common chat templates, should decoding have left them in."""


def split(text: str, mode: Reasoning) -> tuple[str | None, str]:
    """What is graded of ``text``.

    Args:
        text: an assistant turn as sampled.
        mode: ``required`` demands reasoning closed by exactly one ``</think>``; ``optional`` also takes a text without
            any tag as a whole; ``off`` takes every text as it is.

    Returns:
        The answer and ``""``, or ``None`` and the reason why the gate refuses the text.
    """
    text = _without_endings(text)
    if mode == "off":
        return text, ""
    _, closed, answer = text.partition(CLOSE)
    if not closed:
        if mode == "optional" and OPEN not in text:
            return text, ""
        return None, f"the reasoning is not closed by {CLOSE}"
    if CLOSE in answer:
        return None, f"more than one {CLOSE}"
    if OPEN in answer:
        return None, f"{OPEN} after the reasoning"
    answer = answer.strip()
    return (answer, "") if answer else (None, "nothing follows the reasoning")


def _without_endings(text: str) -> str:
    """``text`` before the end-of-turn tokens at its end, in time that grows with its length only."""
    end = bare = len(text)
    while bare:
        if text[bare - 1].isspace():
            bare -= 1
        elif ending := next((each for each in ENDINGS if text.endswith(each, 0, bare)), ""):
            end = bare = bare - len(ending)
        else:
            break
    return text[:end]
