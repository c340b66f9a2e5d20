"""How texts are cut into sentences, tokens and words, against hand-cut ones."""

from __future__ import annotations

import pytest

from m2rl_domain_if.ifbench.text import closed_pairs, folded, plain, spaced, words
from m2rl_domain_if.ifbench.verbs import starts_with_verb
from m2rl_domain_if.ifbench.vocabulary import NAMES, PRONOUNS, STOP_WORDS
from m2rl_domain_if.sentences import sentences
from m2rl_domain_if.tokens import tokens, word_tokens


@pytest.mark.parametrize(
    "expected",
    [
        ["One.", "Two!", "Three?", "Four"],
        ["lower case.", "follows."],
        ["Dr. Smith met Mrs. Lee at 5 p.m. in St. Louis.", "They ate."],
        ["The U.S. economy grew.", "It fell in the U.S.", "However, it rose."],
        ['He said "go."', 'She said "no!"', "(They left.)", "End."],
        ["“Go.”", "They went."],
        ["Well... maybe not.", "It is 3.14 or 1,000.5 now.", "Yes."],
        ["It ended...", "However, it began."],
        ["1.", "Apples are red.", "2.", "Pears are not."],
        ["There were 5. apples"],
        ["J. Smith and A. B. Jones met.", "They sang."],
        ["Take vitamin C. It helps"],
        ["Use tools, e.g.", "hammers, etc.", "in order."],
        ["What?!", "Really!"],
        ["no sentence end\nbut two lines"],
        ["Wait for it .", "Then go ."],
        ["See example.com now.", "Then v1.2.3 came."],
    ],
)
def test_sentences(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected
    assert sentences("\n\n".join(expected)) == expected


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_nothing_has_no_sentence(text: str) -> None:
    assert sentences(text) == []
    assert tokens(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, it's 5:30.", "Do n't stop , it 's 5:30 ."),
        ("I'd've gone; we'll see", "I'd 've gone ; we 'll see"),
        ("He cannot; I'm gonna (go).", "He can not ; I 'm gon na ( go ) ."),
        ('She said "yes!"', "She said `` yes ! ''"),
        ("the dogs' bowl 'as is'", "the dogs ' bowl ' as is '"),
        ("It’s **bold** -- well-known", "It ’ s * * bold * * -- well-known"),
        ("yes—no... $1,000.50 & 7%", "yes — no ... $ 1,000.50 & 7 %"),
        ("Mr. Lee left. He did.", "Mr. Lee left . He did ."),
        ("a, b:c", "a , b : c"),
    ],
)
def test_tokens(text: str, expected: str) -> None:
    assert tokens(text) == expected.split()


def test_words() -> None:
    assert words("It's a well-known (2nd) x_y.") == ["It", "s", "a", "well", "known", "2nd", "x_y"]
    assert spaced("It's -- a 'well-known' one!") == ["It's", "a", "well-known", "one"]
    assert word_tokens("No: it isn't 5!") == ["No", "it", "is", "n't", "5"]


def test_disguises() -> None:
    assert folded("in\u0435vi\u200btable C\u00c1F\u00c9 \uff41\u00ad") == "inevitable cafe a"
    assert folded("\uac00\u304c") == "\uac00\u304c"
    assert plain("S\u00e3o Tom\u00e9 \u2013 \u732b") == "Sao Tome  "


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        ("(a)", [(1, 1)]),
        ("([a] {b})", [(2, 1), (2, 1), (1, 2)]),
        ("((a)", [(2, 1)]),
        ("(a]", []),
        ("(]()", [(1, 1)]),
        (")(", []),
    ],
)
def test_closed_pairs(text: str, pairs: list[tuple[int, int]]) -> None:
    assert list(closed_pairs(text, {"(": ")", "[": "]", "{": "}"})) == pairs


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("Write an essay", True),
        ("Is it", True),
        ("Exploring the deep", True),
        ("Inspired by you", True),
        ("Let's go", True),
        ("Plan your trip", True),
        ("Plan : a trip", False),
        ("Travel is good", False),
        ("Morning has broken", False),
        ("Indeed it has", False),
        ("Should we", False),
        ("The", False),
        ("Go", True),
        ("* Go", False),
        ("", False),
    ],
)
def test_verbs(text: str, verb: bool) -> None:
    assert starts_with_verb(text.split()) == verb


def test_vocabulary() -> None:
    assert len(NAMES) == 50
    assert {"each", "none", "whoever", "us"} <= PRONOUNS
    assert not {"us", "would", "one"} & STOP_WORDS
