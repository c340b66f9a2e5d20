"""``format:``: how a text is laid out."""

from __future__ import annotations

import re
from itertools import pairwise

import emoji as emojis

from m2rl_domain_if.ifbench.table import TABLE, Phrase
from m2rl_domain_if.ifbench.text import EDGES, bare, closed_pairs
from m2rl_domain_if.sentences import sentences
from m2rl_domain_if.tokens import tokens

__all__: list[str] = []

LONGEST_EMOJI = 10
"""Code points."""

_LETTERS_AS_OPTIONS = re.compile(r"\W*a\W*b\W*c\W*", re.IGNORECASE)
_LABELS = ("My Answer:", "My Conclusion:", "Future Outlook:")


@TABLE.add("format:parentheses")
def parentheses(text: str) -> bool:
    """A pair five levels deep is closed; those around it need not be."""
    return any(level >= 5 for level, _ in closed_pairs(text, {"(": ")", "[": "]", "{": "}"}))


@TABLE.add("format:quotes")
def quotes(text: str) -> bool:
    """Three levels are closed. Straight quotation marks only; an apostrophe counts as one."""
    return any(levels >= 3 for _, levels in closed_pairs(text, {'"': '"', "'": "'"}))


@TABLE.add("format:options", options=Phrase)
def options(text: str, options: str) -> bool:
    """One of the options and nothing else: letters to the character, words whatever their case and the signs around."""
    separator = "/" if "/" in options else r"\bor\b" if re.search(r"\bor\b", options) else ","
    allowed = [option.strip() for option in re.split(separator, options)]
    if _LETTERS_AS_OPTIONS.match(options):
        return text in allowed
    answer = text.strip(EDGES).lower()
    return bool(answer) and answer in [option.strip(EDGES).lower() for option in allowed]


@TABLE.add("format:newline")
def newline(text: str) -> bool:
    """One word a line; empty lines are none."""
    text = bare(text).strip()
    lines = [line for line in text.split("\n") if line]
    return 0 < len(lines) == len(text.split())


@TABLE.add("format:emoji")
def emoji(text: str) -> bool:
    """Every sentence ends with an emoji, before or after its full stop."""
    ends = [bare(sentence).strip() for sentence in sentences(text)]
    return all(
        bool(end) and (_ends_with_emoji(end) or emojis.is_emoji(following[:1]))
        for end, following in zip(ends, [*ends[1:], ""], strict=True)
    )


def _ends_with_emoji(text: str) -> bool:
    """One character after it is let pass: a variation selector, or a curly quotation mark."""
    return emojis.is_emoji(text[-2:-1]) or any(emojis.is_emoji(text[-n:]) for n in range(1, LONGEST_EMOJI + 1))


@TABLE.add("format:line_indent")
def line_indent(text: str) -> bool:
    """Each line is indented by more spaces than the one before it; there are two."""
    indents = [len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()]
    return len(indents) > 1 and all(above < below for above, below in pairwise(indents))


@TABLE.add("format:quote_unquote")
def quote_unquote(text: str) -> bool:
    """Something is quoted, no quotation follows another directly, and the text does not end with one."""
    text = "".join(text.replace("'\"'", "").split())
    return text.count('"') > 1 and '""' not in text and not _ends_quoted(text)


def _ends_quoted(text: str) -> bool:
    return text.rstrip("0123456789" + EDGES.replace('"', "")).endswith('"')


@TABLE.add("format:list", sep=Phrase)
def list_(text: str, sep: str) -> bool:
    return text.count(sep) >= 2


@TABLE.add("format:thesis")
def thesis(text: str) -> bool:
    """Something in italics by HTML, and something after it."""
    opening = "<i>" if "<i>" in text else "<em>"
    _, _, rest = text.partition(opening)
    stated, _, after = rest.partition("</i>" if "</i>" in rest else "</em>")
    return bool(stated.strip() and after.strip())


@TABLE.add("format:sub-bullets")
def sub_bullets(text: str) -> bool:
    """There is a ``*``, and a ``-`` before the next one and before the end."""
    bullets = text.split("*")[1:]
    return bool(bullets) and all("-" in bullet for bullet in bullets)


@TABLE.add("format:no_bullets_bullets")
def no_bullets_bullets(text: str) -> bool:
    """Two sentences without an empty line between them, then two ``*`` bullets, then nothing."""
    lines = [line.strip() for line in text.split("\n")]
    first = next((at for at, line in enumerate(lines) if line.startswith("*")), len(lines))
    said, bullets = lines[:first], lines[first:]
    if said and not said[-1]:
        said.pop()
    unbroken = all(said) and all(line.startswith("*") for line in bullets)
    return unbroken and len(bullets) >= 2 and sum(len(sentences(line)) for line in said) >= 2


@TABLE.add("format:title_case")
def title_case(text: str) -> bool:
    """No word is in lower case, "of" and the "n't" of "don't" included; there is a word."""
    found = [token for token in tokens(text) if token[0].isalpha()]
    return bool(found) and not any(_is_lower(token) for token in found)


def _is_lower(token: str) -> bool:
    """Lower case to the end, or from the second letter on upper case; a word like "iPhone" is neither."""
    rest = token[1:]
    return token[0].islower() and (not rest or rest.islower() or rest.isupper())


@TABLE.add("format:output_template")
def output_template(text: str) -> bool:
    return all(label in text for label in _LABELS)


@TABLE.add("format:no_whitespace")
def no_whitespace(text: str) -> bool:
    return not any(char.isspace() for char in text)
