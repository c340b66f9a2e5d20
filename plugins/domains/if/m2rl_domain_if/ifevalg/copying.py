"""What must be said again, word for word or nearly."""

from __future__ import annotations

from m2rl_core.errors import DataError
from m2rl_domain_if.arguments import Count, Positive, Text
from m2rl_domain_if.ifevalg.table import TABLE

__all__: list[str] = []


def _same(text: str, other: str) -> bool:
    return text.strip().lower() == other.strip().lower()


@TABLE.add("combination:repeat_prompt", prompt_to_repeat=Text)
def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    """The text begins with the prompt, in any case."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


@TABLE.add("copy:copy", prompt_to_repeat=Text)
@TABLE.add("copy:copying_simple", prompt_to_repeat=Text)
def copy(text: str, prompt_to_repeat: str) -> bool:
    """The text is the prompt, in any case."""
    return _same(text, prompt_to_repeat)


@TABLE.add("copy:copying_multiple", prompt_to_repeat=Text, N=Positive)
def copying_multiple(text: str, prompt_to_repeat: str, N: int) -> bool:
    """The prompt so many times, with six asterisks in between."""
    copies = text.split("******")
    return len(copies) == N and all(_same(each, prompt_to_repeat) for each in copies)


@TABLE.add("new:copy_span_idx", prompt_to_repeat=Text, n_start=Count, n_end=Count)
def copy_span_idx(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The text is the prompt from character ``n_start`` up to, not including, ``n_end``.

    Raises:
        DataError: nothing is left of it.
    """
    span = prompt_to_repeat[n_start:n_end]
    if not span.strip():
        raise DataError("n_start and n_end leave nothing of the prompt", found=f"{n_start} to {n_end}")
    return _same(text, span)


@TABLE.add("copy:repeat_phrase", phrase=Text, small_n=Positive)
def repeat_phrase(text: str, phrase: str, small_n: int) -> bool:
    """The phrase exactly so many times, each in a line and with exactly one inner word replaced."""
    wanted = phrase.split()
    first, last = f"{wanted[0]} ", f" {wanted[-1]}"
    repeats = [found.split() for line in text.split("\n") for found in _between(line, first, last)]
    return len(repeats) == small_n and all(_one_replaced(repeat, wanted) for repeat in repeats)


def _between(line: str, first: str, last: str) -> list[str]:
    """The shortest stretches from ``first`` to ``last``, without overlaps."""
    found = []
    start = line.find(first)
    while start >= 0 and (end := line.find(last, start + len(first))) >= 0:
        found.append(line[start : end + len(last)])
        start = line.find(first, end + len(last))
    return found


def _one_replaced(repeat: list[str], wanted: list[str]) -> bool:
    same = [one == other for one, other in zip(repeat, wanted, strict=False)]
    return len(repeat) == len(wanted) and same.count(False) == 1
