"""The shape of the text: lists, titles, sections, brackets, JSON, two answers."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from m2rl_domain_if.arguments import Count, Keyword, Positive
from m2rl_domain_if.folding import visible
from m2rl_domain_if.ifevalg.brevity import is_brief
from m2rl_domain_if.ifevalg.table import TABLE
from m2rl_domain_if.patterns import pieces
from m2rl_domain_if.statements import statements

__all__: list[str] = []

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
DEEPEST_JSON = 200
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


@TABLE.add("detectable_format:number_bullet_lists", num_bullets=Count)
def number_bullet_lists(text: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with ``-``, or with one ``*``."""
    lines = [line.lstrip() for line in text.split("\n")]
    return sum(line[:1] == "-" or (line[:1] == "*" and line[1:2] not in ("", "*")) for line in lines) == num_bullets


@TABLE.add("detectable_format:constrained_response")
def constrained_response(text: str) -> bool:
    """Exactly one of the three answers occurs."""
    return sum(answer in text for answer in ANSWERS) == 1


@TABLE.add("detectable_format:number_highlighted_sections", num_highlights=Positive)
def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    """At least so many ``*...*`` and ``**...**``, each within a line and not blank."""
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(visible(inside).strip()) for inside in single + double) >= num_highlights


@TABLE.add("detectable_format:multiple_sections", section_spliter=Keyword, num_sections=Positive)
def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """The splitter, in its case, and a number stand at the head of at least so many sections."""
    return pieces(section_spliter.strip(), r"\s?\d+", text) - 1 >= num_sections


@TABLE.add("detectable_format:json_format")
def json_format(text: str) -> bool:
    """The whole text is one JSON object, array or string, or a fenced block that holds one."""
    body = re.sub(r"\A```(?:json|Json|JSON)?|```\Z", "", text.strip()).strip()
    if body[:1] not in ("{", "[", '"') or _depth(body) > DEEPEST_JSON:
        return False
    try:
        json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


def _depth(body: str) -> int:
    """Deepest nesting of brackets outside strings."""
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.findall(body):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token, 0)
        deepest = max(deepest, depth)
    return deepest


@TABLE.add("detectable_format:title")
def title(text: str) -> bool:
    """Some line has ``<<...>>`` with a name in it."""
    return any(_titled(line) for line in text.split("\n"))


def _titled(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end - 2 and bool(visible(line[start:end]).strip("<> \t\r"))


@TABLE.add("detectable_format:sentence_hyphens")
def sentence_hyphens(text: str) -> bool:
    """Sentences joined by hyphens without spaces, and no other hyphen; two or more where the text is brief."""
    parts, expected = text.split("-"), statements(text.replace("-", " "))
    return parts == expected and (len(parts) > 1 or not is_brief(text))


@TABLE.add("detectable_format:square_brackets")
def square_brackets(text: str) -> bool:
    """Every word is in square brackets of its own."""
    return all(word[0] == "[" and word[-1] == "]" for word in text.split())


@TABLE.add("detectable_format:bigram_wrapping")
def bigram_wrapping(text: str) -> bool:
    """``<<two words>>`` at a time, at least once; a last word without a partner is free."""
    words = text.split()
    pairs = list(zip(words[::2], words[1::2], strict=False))
    return bool(pairs) and all(first.startswith("<<") and second.endswith(">>") for first, second in pairs)


@TABLE.add("combination:two_responses")
def two_responses(text: str) -> bool:
    """Two different answers with six asterisks between them."""
    parts = [visible(part).strip() for part in text.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]
