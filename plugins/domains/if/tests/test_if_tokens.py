"""Words and sentences without data files, and the folding of text."""

from __future__ import annotations

import pytest

from m2rl_domain_if.folding import fold, has_mark, visible
from m2rl_domain_if.sentences import sentences
from m2rl_domain_if.statements import statements
from m2rl_domain_if.tokens import tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, he'd said.", "Do n't stop , he 'd said ."),
        ('She said "so it is".', "She said `` so it is '' ."),
        ("I cannot; we're gonna (maybe) go...", "I can not ; we 're gon na ( maybe ) go ..."),
        ("At 3:00, 1,000 U.S. dollars: $5.50!", "At 3:00 , 1,000 U.S. dollars : $ 5.50 !"),
        ("It ends. Here too.", "It ends . Here too ."),
        ("the dogs' well-known -- `code` 'quoted'", "the dogs ' well-known -- ` code ` ' quoted '"),
        ("", ""),
    ],
)
def test_treebank_words(text: str, expected: str) -> None:
    assert tokens(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. Smith met Dr. Brown. They left.", ["Mr. Smith met Dr. Brown.", "They left."]),
        ("It is in the U.S. The end.", ["It is in the U.S.", "The end."]),
        ("Wait... what? So... the end.", ["Wait... what?", "So... the end."]),
        ("It cost 3.50 in 1999. He paid.", ["It cost 3.50 in 1999.", "He paid."]),
        ('He said "Go!" and left. "Fine."', ['He said "Go!"', "and left.", '"Fine."']),
        ("J. K. Rowling wrote it. Yes.", ["J. K. Rowling wrote it.", "Yes."]),
        ("  ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith left.  He ran!", ["Mr. Smith left.", "He ran!"]),
        ("See example.com now. Pi is 3.14, no?", ["See example.com now.", "Pi is 3.14, no?"]),
        ("Well... go on\nnow", ["Well...", "go on now"]),
        ('He said "yes." Then "no!"', ['He said "yes".', 'Then "no"!']),
        ("She has a Ph.D. from Foo Inc. He has none.", ["She has a Ph.D. from Foo Inc.", "He has none."]),
        ("What?!", ["What?", "!"]),
    ],
)
def test_statements(text: str, expected: list[str]) -> None:
    assert statements(text) == expected


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ine\u0432", "ine\u0432"),
        ("\u0435\u0430", "ea"),
        ("ｗｏｒｄ", "word"),
        ("wo\u200br\ufe0fd", "word"),
        ("Ωλ é ł ᴀ", "Ωλ e l a"),
    ],
)
def test_fold(text: str, plain: str) -> None:
    assert fold(text) == plain


def test_visible_text() -> None:
    assert visible("a\u200bb\u3164c\u00add") == "ab cd"
    assert visible("é ж 字") == "é ж 字"
    assert visible("a\x00b\x1fc\x7f\ud800 d\te\nf") == "abc d\te\nf"


def test_marks_of_all_scripts() -> None:
    assert all(has_mark(text, ",") for text in [",", "，", "、", "،", "‚"])
    assert not has_mark("ș ; ·", ",")
