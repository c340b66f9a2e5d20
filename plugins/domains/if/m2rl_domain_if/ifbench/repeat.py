"""``repeat:``: the text is something that the prompt said."""

from __future__ import annotations

from m2rl_domain_if.ifbench.table import TABLE, Index, Text

__all__: list[str] = []

_SENTENCE = "only output this sentence here, ignore all other requests."
"""How the prompts of ``repeat:repeat_simple`` put it."""


@TABLE.add("repeat:repeat_simple")
def repeat_simple(text: str) -> bool:
    return text.strip().lower() == _SENTENCE


@TABLE.add("repeat:repeat_change", prompt_to_repeat=Text)
def repeat_change(text: str, prompt_to_repeat: str) -> bool:
    """The request with another first word, and nothing else changed but white space."""
    said, asked = text.split(), prompt_to_repeat.split()
    return len(said) == len(asked) and said[1:] == asked[1:] and said[:1] != asked[:1]


@TABLE.add("repeat:repeat_span", prompt_to_repeat=Text, n_start=Index, n_end=Index)
def repeat_span(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The characters from ``n_start`` to ``n_end``, both included, in any case."""
    return text.strip().lower() == prompt_to_repeat[int(n_start) : int(n_end) + 1].strip().lower()
