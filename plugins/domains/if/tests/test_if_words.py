"""IFEvalG by hand: words, letters, languages, and how much of them; texts that follow and texts that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Case = tuple[str, dict[str, Any], list[str], list[str]]
ENGLISH = "The quick brown fox jumps over the lazy dog while the children are watching from the window"
FRENCH = "Le chat dort sur le canapé pendant que les enfants jouent dans le jardin avec leurs amis"
LESS = {"relation": "less than"}
LEAST = {"relation": "at least"}
CASES: list[Case] = [
    (
        "keywords:existence",
        {"keywords": ["sun", "moon"]},
        ["Moonlight on Sunday", "sun moon"],
        ["sun", "s\u200bun moon"],
    ),
    ("keywords:existence", {"keywords": [r"colou?r"]}, ["The color red"], ["The cooler red"]),
    ("keywords:existence", {"keywords": ["a(b"]}, ["f = a(b)"], ["ab"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["part", "inevitable"]},
        ["It has apartments.", "party"],
        [
            "Part one",
            "this is inev\u0456table",
            "ine\u200bvitable",
            "inévitable",
            "ｐａｒｔ",
            "a 𝗽𝗮𝗿𝘁 of it",
            "a pa\u0301rt",
            "_part_",
            "a __Part__ of it",
            "pa\x00rt",
            "pa\x7frt",
            "pa\ud800rt",
            "pa\u17b4rt",
            "pa\u20ddrt",
            "раr\u0442",
            "ꓑꓮꓣꓔ",
        ],
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["U.S."]}, ["the US and me"], ["the U.S. is"]),
    ("keywords:forbidden_words", {"forbidden_words": ["рак"]}, ["раки"], ["это рак", "это р\u200bак"]),
    (
        "keywords:exclude_word_harder",
        {"keyword": "word"},
        ["wordy", "no such", "a one-word reply", "the word’s end"],
        ["word", "A word.", "A Word is", "wоrd", "'word'", "one word- or two", "in [word]s"],
    ),
    (
        "keywords:frequency",
        {"keyword": "hat", "frequency": 2, **LEAST},
        ["hat on hat", "That chat"],
        ["one hat", "hat h\u200bat", ""],
    ),
    (
        "keywords:frequency",
        {"keyword": "hat", "frequency": 2, **LESS},
        ["one hat", "none"],
        ["hat hat", "hat h\u0430t"],
    ),
    ("keywords:word_count_different_numbers", {"keyword": "a", "frequency": 1, **LESS}, ["bcd"], ["A", "xáx", "bad"]),
    (
        "keywords:word_once",
        {"keyword": "moon"},
        ["The moon.", "moonlight"],
        ["sun", "moon moon", "Moon and mo\u200bon"],
    ),
    (
        "count:count_increment_word",
        {"keyword1": "sun", "keyword2": "rain"},
        ["rain sun rain"],
        ["sun rain", "sun sun rain rain", "sun rain rain rain", "sun rain rain, r\u200bain"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_frequency": 3, "let_relation": "less than"},
        ["Eve", "no such letter"],
        ["eee", "E e E", "ее\u0435", "ｅee"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "at least"},
        ["Oh! Ah!"],
        ["Oh!"],
    ),
    (
        "letters:letter_counting2",
        {"letter": "Q", "let_frequency": 2, "let_relation": "at least"},
        ["quick Queen"],
        ["queen", "ｑｑ"],
    ),
    ("letters:letter_counting", {"N": 5, **LEAST}, ["abcde", "1 abc de"], ["abcd", "12345", "буквы"]),
    ("letters:letter_counting", {"N": 5, **LESS}, ["abcd", "123 456"], ["abcde", "буквы"]),
    (
        "keywords:no_adjacent_consecutive",
        {},
        ["a cat eats", "b a", "word"],
        ["a big cat", "Alpha beta", "so \u200btall", "\u0430 big"],
    ),
    (
        "keywords:palindrome",
        {},
        [
            "the level is",
            "a racecar b",
            "noon",
            "This is how we go on with a friend of ours",
            "- one\n- two\n- three\n- four\n- five",
        ],
        [
            "a b",
            "I do",
            "** --- **",
            "lever",
            "Level.",
            "This is a text of only so many words",
            "The words here look forwards, but none of them reads backwards",
        ],
    ),
    (
        "keywords:keyword_specific_position",
        {"keyword": "moon", "n": 2, "m": 3},
        ["One. The full moon rose.", "Oh! A, moon"],
        ["One. The moon rose.", "The full moon.", "One. The full Moon."],
    ),
    ("keywords:start_end", {}, ["Hello and hello", "so it is so"], ["Hello and hello.", "word", ". so .", "a b"]),
    ("language:response_language", {"language": "fr"}, [FRENCH], [ENGLISH, "12345 67890", "!!!"]),
    (
        "language:response_language",
        {"language": "zh"},
        ["这是一个关于中国历史和文化的简短介绍,我们今天去公园散步,然后回家吃饭"],
        [ENGLISH],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, **LEAST},
        ["Go up. See it! Is it?"],
        ["Mr. Smith left. He ran.", "!!!", "Go up. . . .", "? ! Yes."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, **LESS},
        ["One here. Two here.", "One here… and then… she left."],
        ["One. Two. Three.", "One\u2024 Two\uff0e Three."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na***b"],
        ["a\n\nb", "a***b***c", "a***\u200b***b"],
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, ["a***b***c"], ["a*** ***c", "a***b"]),
    (
        "length_constraints:number_words",
        {"num_words": 3, **LEAST},
        ["one two, three"],
        ["one two", "o\u200bn\u200be two", "one\x1ftwo\x1fthree", "_ _ _ _", "snake_case two"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, **LESS},
        ["one two", "... !"],
        ["don't go", "a\u3164b\u3164c", "_ _ _"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Crash"},
        ["One.\n\ncrash here", "One.\n\n'Crash, he said"],
        ["crash here\n\nOne.", "One.\n\ncrash\n\nthree", "crash", "One.\n\n\n\ncrash"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["A BIG dog", "USA, UK"],
        ["BIG dog", "Big Dog"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["BIG dog", "none"],
        ["I AM"],
    ),
    (
        "change_case:english_capital",
        {},
        [ENGLISH.upper()],
        [ENGLISH, FRENCH.upper(), "12345", "ⒶⒷ", "MY ANSWER IS MAYBE."],
    ),
    ("change_case:english_lowercase", {}, [ENGLISH.lower()], [ENGLISH, FRENCH.lower(), "12345"]),
    (
        "count:lowercase_counting",
        {"N": 1},
        ["ONE two THREE", "ALL CAPS"],
        ["one two", "ÉTÉ été tué", "о\u0442 a b", "don't"],
    ),
    ("count:lowercase_counting", {"N": 0}, ["NONE"], ["one"]),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 3},
        ["Go now. Come back!***So so. We go.***Oh no! He ran."],
        ["Go now. Come back!***So so. We go.", "Go now.***So so.***Oh no!", "One two three.***" * 3],
    ),
    ("count:count_unique", {}, ["One by two", "The the"], ["one one", "a, b, c", "word w\u043erd", "word wo\u200brd"]),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_by_hand(case: Case, misjudged: Callable[[Case], list[tuple[str, bool]]]) -> None:
    assert misjudged(case) == []


def test_every_instruction_has_cases_of_both_kinds(assert_complete: Callable[[list[Case], bool], None]) -> None:
    assert_complete(CASES, True)
