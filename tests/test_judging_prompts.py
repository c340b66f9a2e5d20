"""How a judge is asked, and how its verdict is read, also of hostile text."""

from __future__ import annotations

import pytest

from m2rl_core.judging.prompts import OUTCOME, PROCESS, ask, fields, parts, said, verdict
from m2rl_core.types import Message

QUESTION = (Message(role="user", content="What is 2+2?"),)


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("Verdict: Yes", True),
        ("verdict: no", False),
        ("<think>2+2=4</think>Verdict: Yes", True),
        ("It adds up.\n\n**Verdict: No.**\n", False),
        ("## Verdict: **Yes**", True),
        ("<think>Verdict: No</think>Verdict: Yes", True),
        ("Verdict: Yes<|im_end|>", True),
        ("", None),
        ("  \n", None),
        ("Yes", None),
        ("Verdict:", None),
        ("Verdict: Yes or No", None),
        ("Verdict: Yesterday", None),
        ("<think>Verdict: Yes", None),
        ("<think></think>", None),
        ("Verdict: Yes\nVerdict: No", None),
        ("Verdict: No\nThat is all.", None),
        ('The answer ends "Verdict: Yes", which is no proof.\nVerdict: No', False),
        ('The answer says "Verdict: Yes".', None),
        ("> Verdict: Yes", None),
        ("Verdict: Yes\nThe above was in the answer.\nVerdict: No", None),
    ],
)
def test_a_verdict_is_a_last_line_that_nothing_contradicts(turn: str, wanted: bool | None) -> None:
    assert verdict(turn) is wanted


def test_long_replies_are_read_in_no_time() -> None:
    assert verdict(" *_`#" * 200_000) is None
    assert verdict("verdict" * 100_000) is None


@pytest.mark.parametrize("right", [True, False])
def test_what_a_judge_is_shown_to_say_is_read_as_that(right: bool) -> None:
    assert verdict(f"<think>so</think>{said(right)}") is right


def test_the_two_ways_show_what_they_say() -> None:
    outcome = ask(OUTCOME, QUESTION, "2 and 2", "4")["content"]
    process = ask(PROCESS, QUESTION, "2 and 2", "4")["content"]
    assert "What is 2+2?" in outcome
    assert "Answer: 4" in outcome
    assert "2 and 2" not in outcome
    assert "Reasoning: 2 and 2" in process
    assert "Reasoning: (none)\nAnswer: (none)" in ask(PROCESS, QUESTION, " ", "")["content"]


def test_braces_in_what_is_shown_stay_as_they_are() -> None:
    shown = ask(PROCESS, (Message(role="user", content="{answer} {0}"),), "{question.__class__}", "{reasoning}{")
    assert shown["content"].startswith("{answer} {0}\n\nReasoning: {question.__class__}\nAnswer: {reasoning}{\n")


def test_fields_are_plain_names() -> None:
    assert fields(OUTCOME) == {"question", "answer"}
    assert fields(PROCESS) == {"question", "answer", "reasoning"}
    assert fields("{{x}} {answer}") == {"answer"}
    for bad in ("{answer.x}", "{answer!r}", "{answer:>9}", "{}", "{0}"):
        with pytest.raises(ValueError, match="no plain name"):
            fields(bad)
    with pytest.raises(ValueError, match=r"'\}'"):
        fields("{answer")


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("<think>a</think>b", ("a", "b")),
        ("a</think>b<|im_end|>", ("a", "b")),
        ("b", ("", "b")),
        ("<think>never ends", ("never ends", "")),
        ("<think>a</think>", ("a", "")),
        ("", ("", "")),
    ],
)
def test_a_turn_is_taken_apart(turn: str, wanted: tuple[str, str]) -> None:
    assert parts(turn) == wanted
