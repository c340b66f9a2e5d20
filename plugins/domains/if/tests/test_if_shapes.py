"""IFEvalG by hand: formats, paragraphs, marks, copies, beginnings and ends; texts that follow and that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from m2rl_domain_if.ifevalg import TABLE

Case = tuple[str, dict[str, Any], list[str], list[str]]
PROMPT = {"prompt_to_repeat": "Sing a Song"}
PHRASE = {"phrase": "Dance like nobody is watching you", "small_n": 2}
CASES: list[Case] = [
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] and [b]", "[[a] []"],
        ["[a]", "[a\n] [b]"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye\np. s. more", "P.S. x"], ["PS more", "p.s"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S. x", "p. p. s"], ["P.S. x"]),
    ("detectable_content:postscript", {"postscript_marker": "NB:"}, ["Text\nnb: more"], ["Text"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  * b"],
        ["* a", "** a **\n* b", "a - b"],
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 0}, ["none"], ["- one"]),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "I think so. My answer is no."],
        ["Yes.", "my answer is yes.", "My answer is yes. My answer is no. My answer is maybe."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*"],
        ["*a*", "* * and ** **", "*a\nb* c", "*\u200b* *\u200b*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1 Section2 Section3"],
        ["Section 1\na", "SECTION 1 SECTION 2", "Section one Section two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, "]{"]}', "```json\n[1]\n```", '```\n{"a": 1}\n```', '"one \\"text\\""'],
        [
            "5",
            "true",
            '"one" and "two"',
            '"two\nlines"',
            "{'a': 1}",
            '{"a": NaN}',
            'Here: {"a": 1}',
            "[" * 100_000,
            "[" * 300 + "]" * 300,
            '{"a": "' + "\\" * 9,
        ],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Joy>>\ntext", "x <<a b>> y"],
        ["<<>>", "<< >>", "<joy>", "<<a\nb>>", "<<\u200b>>"],
    ),
    (
        "detectable_format:sentence_hyphens",
        {},
        [
            "One here.-Two here.",
            "So it is.-Well.-Yes!",
            "One sentence of ten words has nothing to be joined.",
        ],
        [
            "One here. Two here.",
            "One here.",
            "One sentence of nine words has nothing to join.",
            "Here are ten words and a half. And five more follow.",
            "One here. - Two here.",
            "A well-known fact.",
        ],
    ),
    (
        "detectable_format:square_brackets",
        {},
        ["[all] [words]", "[one]", "[]"],
        ["[all] words", "[two words]", "[", "words"],
    ),
    (
        "detectable_format:bigram_wrapping",
        {},
        ["<<one two>> <<three four>>", "<<a b>> c"],
        ["word", "one two", "<<a b c>> d"],
    ),
    (
        "combination:two_responses",
        {},
        ["One******Two", "******a\n******\nb"],
        ["One", "a******a", "a******b******c", "******a", "a******\u200b", "a******a\u200b"],
    ),
    ("combination:repeat_prompt", PROMPT, ["sing a song. La la", "Sing a Song"], ["La la", "I sing a song"]),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions?"},
        ["Hi. Any questions?", '"any questions?"'],
        ["Any questions? Bye."],
    ),
    ("startend:quotation", {}, ['"all of it"', '"a"'], ["none", '"', '""', '" "', '"\u200b"', '"a" b', "“a”"]),
    (
        "punctuation:no_comma",
        {},
        ["None here; none.", "Bucureș\u0326ti ș"],
        ["a, b", "a，b", "a、b", "a، b", "a‚ b", "a\u200b,b", "a¸ b"],
    ),
    ("punctuation:punctuation_dot", {}, ["None here!", "so: yes"], ["Yes.", "3.5", "好。", "wait…", "a．b", "a․b"]),
    ("punctuation:punctuation_exclamation", {}, ["Calm.", "1? 2?"], ["Oh!", "好！", "oh ‼", "oh ❗", "ohǃ", "¡oh"]),
    ("copy:repeat_phrase", PHRASE, ["Dance like somebody is watching you. Dance like nobody is seeing you"], []),
    (
        "copy:repeat_phrase",
        PHRASE,
        [],
        [
            "Dance like somebody is watching you",
            "Dance like nobody is watching you. Dance like somebody is watching you",
            "Dance like somebody is seeing you. Dance like nobody is seeing you",
            "Dance as you. Dance as you",
        ],
    ),
    ("copy:copy", PROMPT, ["Sing a Song", "sing a song\n"], ["Sing a Song.", "Sing", "Sing a Song Sing a Song"]),
    ("copy:copying_simple", PROMPT, ["SING A SONG"], ["Sing a  Song", "song"]),
    (
        "copy:copying_multiple",
        {**PROMPT, "N": 2},
        ["sing a song\n******\nSing a song"],
        ["sing a song", "sing a song******", "******".join(["sing a song"] * 3)],
    ),
    ("new:copy_span_idx", {**PROMPT, "n_start": 0, "n_end": 4}, ["Sing", "sing"], ["Sing a", "Sin", "song"]),
    ("new:copy_span_idx", {**PROMPT, "n_start": 5, "n_end": 99}, ["a song"], ["Sing a Song"]),
    ("paragraphs:paragraphs", {}, ["a\n***\nb", "***a***b***"], ["a", "a\n\nb", "a***b***c", "a***\n***b"]),
    (
        "paragraphs:paragraphs2",
        {},
        ["a\n\nb", "a\nb\n\nc"],
        ["a", "a\n***\nb", "a\n\nb\n\nc", "a\n\n\n\nb", "a\n\n\u200b"],
    ),
    (
        "first_word:first_word_sent",
        {"first_word": "so"},
        ["So it is. So be it!", "so"],
        ["So it is. But no.", "It is so."],
    ),
    ("first_word:first_word_sent", {"first_word": ["So"]}, ["So it is."], ["So, it is.", "Well. So."]),
    (
        "first_word:first_word_answer",
        {"first_word": "Hello"},
        ["hello you", "Hello"],
        ["Hello, you", "You", "\u200bhello you"],
    ),
    ("last_word:last_word_sent", {"last_word": "now"}, ["Go now. Come now!", "now"], ["Go now. Come.", "Now go."]),
    ("last_word:last_word_answer", {"last_word": "now"}, ["Go now.", "*Now!*"], ["now we go", "nowhere"]),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_by_hand(case: Case, misjudged: Callable[[Case], list[tuple[str, bool]]]) -> None:
    assert misjudged(case) == []


def test_every_instruction_has_cases_of_both_kinds(assert_complete: Callable[[list[Case], bool], None]) -> None:
    assert_complete(CASES, False)


def test_there_are_54() -> None:
    assert len(TABLE) == 54
