"""The verifier against hand-written answers: right ones in other words, hedges, fragments of words, and attacks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_science import Science

CATALOGUE = Path(__file__).resolve().parents[5] / "shared" / "data" / "adversarial.jsonl"
DOMAIN = Science(Science.Config())
FOUR = [{"A": "10^-9 eV"}, {"B": "10^-8 eV"}, {"C": "10^-4 eV"}, {"D": "Vitamin C"}]
TEN = [{letter: f"thing {index}"} for index, letter in enumerate("ABCDEFGHIJ")]


def judge(gold: object, text: str, options: Any = FOUR, pattern: str | None = None) -> Reward:
    metadata = {"options": options, "template_metadata": {"output_regex": pattern}}
    return DOMAIN.verify(Trajectory(Prompt("p", "science", (), gold, metadata), (), text))


@pytest.mark.parametrize(
    "text",
    [
        "Answer: C",
        "answer: c",
        "Answer: (C)",
        "Answer: [C].",
        "Answer: 'C'",
        "Answer: Option C",
        "**Answer: C**",
        "**Answer:** C",
        "Answer：Ｃ",
        "Answer: C. 10^-4 eV",
        "Answer: c) 10^-4 eV",
        "Answer: C because the levels are close",
        "Answer: 10^-4 eV",
        "The answer is C.",
        "The correct answer is (C).",
        "The answer is not A. Answer: C",
        r"\boxed{C}",
        r"$\boxed{\text{C}}$",
        r"\boxed{\mathbf{(C)}}",
        r"Answer: \boxed{{C}}",
        r"\boxed{C: 10^-4 eV}",
        r"\boxed{10^-4\text{ eV}}",
        "Option A is too small, B and D are too. Answer: C\nAnswer: C",
        "Final Answer: The final answer is C. I hope it is correct.",
        "The answer is **C**.",
        "Answer:\nC",
        "**The correct answer is:**\n\n**C) 10^-4 eV**",
        "The correct option is **C**.",
        "Correct choice: (C)",
        "The answer is therefore C",
        "Thus the answer must be C.",
        r"Answer: \(C\)",
        r"\textbf{Answer:} C",
        "Answer: <C>",
        "Answer: C, not D.",
        r"\boxed{10^{-4}\text{ eV}}",
        r"\boxed{10^{-4}\,\mathrm{eV}}",
    ],
)
def test_right_in_other_words(text: str) -> None:
    assert judge("C", text).value == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "C",
        "I choose C",
        "**C** is nice",
        "Answer:",
        "Answer: A\nAnswer: C",
        "Answer: C\nAnswer: A",
        "Answer: A/B/C/D",
        "Answer: A, B, C or D",
        "Answer: C or D",
        "Answer: C, D",
        "Answer: C & D",
        "Answer: CD",
        "Answer: C or maybe 10^-8 eV",
        "Answer: C. Although D is also right",
        "The answer is C, but it could be D",
        "The answer is not C.",
        "Answer: not C",
        r"\boxed{A} \boxed{B} \boxed{C}",
        r"\boxed{A}" + "\nAnswer: C",
        r"\boxed{A, C}",
        r"\boxed{C: 10^-9 eV}",
        r"\boxed{C} or D",
        r"not \boxed{C}",
        r"\boxed{C",
        "Answer: CO2",
        "Answer: C_2",
        "Answer: C = 5",
        "Answer: Carbon",
        "Answer: carbon",
        "The correct answer could be anything",
        "Answer: c or d",
        "Answer: none",
        "Answer: \u0421",  # Cyrillic
        "Answer: H",
        "Answer: C\u0301",
        "Answer: C is wrong",
        "Answer: C is not right",
        "Answer: C isn't it",
        "Answer: C?",
        "Answer: C++",
        "Answer: C-14",
        "Answer:\nC\nD",
        "Answer:\nC or D",
        "Correct option: C\nCorrect option: D",
        r"\boxed{C\\D}",
        r"It cannot be \boxed{C}",
        "A" * 200_000,
        "Answer: " * 1000,
    ],
)
def test_wrong_however_close(text: str) -> None:
    assert judge("C", text).value == 0.0


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("A", "A careful look shows that it depends."),
        ("A", "The answer is a matter of taste"),
        ("A", "Answer: A careful look"),
        ("B", "My answer: because the levels overlap, none."),
        ("D", "The correct answer depends on many things."),
        ("I", "Answer: I think so"),
    ],
)
def test_words_are_no_letters(gold: str, text: str) -> None:
    assert judge(gold, text, TEN).value == 0.0


@pytest.mark.parametrize("gold", ["A", "I"])
@pytest.mark.parametrize("why", ["because it fits", "since it fits", "which fits", "or so"])
def test_a_letter_with_a_reason_is_no_article(gold: str, why: str) -> None:
    assert judge(gold, f"Answer: {gold} {why}", TEN).value == (0.0 if why == "or so" else 1.0)


def test_all_ten_letters_can_be_right() -> None:
    for letter in "ABCDEFGHIJ":
        for options in (TEN, None, []):
            assert judge(letter, f"Answer: {letter}", options).value == 1.0
            assert judge(letter, f"\\boxed{{{letter}}}", options).value == 1.0
    assert judge("J", "Answer: K", None).value == 0.0
    assert judge(" ｊ ", "Answer: J", dict(pair for each in TEN for pair in each.items())).value == 1.0


@pytest.mark.parametrize(
    ("pattern", "text", "right"),
    [
        (r"Option Selected:\s*([A-Za-z])\s*", "Option Selected: C", True),
        (r"Option Selected:\s*([A-Za-z])\s*", "option selected: c", True),
        (r"Option Selected:\s*([A-Za-z])\s*", "Option Selected: Carbon", False),
        (r"Option Selected:\s*([A-Za-z])\s*", "Option Selected: C or D", False),
        (r"Option Selected:\s*([A-Za-z])\s*", "Option Selected: A\nOption Selected: C", False),
        (r"Option Selected:\s*([A-Za-z])\s*", "Option Selected: A\n\\boxed{C}", False),
        (r"Option Selected:\s*([A-Za-z])\s*", "Answer: C", True),
        (r"Option Selected:\s*([A-Za-z])\s*", "Option Selected: C\nAnswer: C", True),
        (r"\\boxed\{\s*([A-Za-z])\s*\}", r"so \boxed{ C } since A is too small", True),
        (r"ANSWER IS\s*([A-Za-z])\s*", "The answer is a long story. ANSWER IS C", True),
        (r"Answer\s*:\s*(?!Answer)\s*([A-Za-z])\s*", "Answer: Answer: C", True),
        (r"Choose [A-D]", "Choose C", False),
        (r"([A-D])?never", "never. Answer: C", True),
        (r"(a|aa)+$", "a" * 3000 + "!", False),
        (r"(a|aa)+$", "a" * 3000 + "! Answer: C", True),
    ],
)
def test_the_rows_own_pattern_comes_first(pattern: str, text: str, right: bool) -> None:
    started = time.process_time()
    assert (judge("C", text, pattern=pattern).value == 1.0) == right
    assert time.process_time() - started < 3.0


@pytest.mark.parametrize(
    ("gold", "options", "pattern"),
    [
        ("", FOUR, None),
        (None, FOUR, None),
        ("AB", FOUR, None),
        ("H", FOUR, None),
        ("K", None, None),
        ("A", [{"AA": "x"}], None),
        ("A", [{"A": "x"}, {"A": "y"}], None),
        ("A", ["x", "y"], None),
        ("A", 7, None),
        ("A", FOUR, "([A-Z"),
        ("A", FOUR, "(A)" * 1000),
        ("A", FOUR, "(?R)(A)"),
    ],
)
def test_a_bad_key_is_no_reward(gold: object, options: object, pattern: str | None) -> None:
    with pytest.raises(DataError, match="prompt 'p'"):
        judge(gold, "Answer: A", options, pattern)


def test_a_row_may_have_several_patterns() -> None:
    patterns = [r"Option Selected:\s*([A-Za-z])\s*", r"Letter\s*=\s*([A-Z])"]

    def value(text: str) -> float | None:
        metadata = {"options": FOUR, "template_metadata": {"output_regex": patterns}}
        return DOMAIN.verify(Trajectory(Prompt("p", "science", (), "C", metadata), (), text)).value

    assert value("Letter = C") == value("Option Selected: C") == 1.0
    assert value("Letter = C\nOption Selected: D") == 0.0


def test_a_pattern_that_matches_everywhere_takes_no_time() -> None:
    started = time.process_time()
    assert judge("C", "C" * 90_000, pattern="C").value == 0.0
    assert judge("C", "Answer: C" + " I" * 40_000, pattern="[A-Z]").value == 0.0
    assert time.process_time() - started < 2.0


def test_500_simple_answers_a_second() -> None:
    pattern = r"Answer\s*:\s*(?!Answer)\s*([A-Za-z])\s*"
    started = time.process_time()
    right = sum(
        judge("C", f"Some reasons.\nAnswer: {'ABCD'[n % 4]}", pattern=pattern).value == 1.0 for n in range(1000)
    )
    assert right == 250
    assert time.process_time() - started < 2.0


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("tier", ["must", "control", "hardened"])
def test_the_catalogue(tier: str) -> None:
    rows = [row for row in map(json.loads, CATALOGUE.read_text().splitlines()) if row["domain"] == "science"]
    judged = [row for row in rows if row["tier"] == tier]
    assert judged
    for row in judged:
        answer, _ = split(row["response"], "required" if row["metadata"].get("reasoning") == "think" else "off")
        prompt = Prompt(row["id"], "science", (), row["ground_truth"], row["metadata"])
        if not row["ground_truth"]:
            with pytest.raises(DataError):
                DOMAIN.verify(Trajectory(prompt, (), answer or ""))
            continue
        value = 0.0 if answer is None else DOMAIN.verify(Trajectory(prompt, (), answer)).value
        assert value == row["expected_reward"], row["id"]
