"""The verdict on a response: all instructions, strict and loose, attacks, and the catalogue."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rewards.reasoning import split
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_if import If
from m2rl_domain_if.ifevalg import TABLE
from m2rl_domain_if.judging import INSTRUCTIONS, follows, instructions

CATALOGUE = Path(__file__).resolve().parents[5] / "shared" / "data" / "adversarial.jsonl"
TWO = [("punctuation:no_comma", {}), ("last_word:last_word_answer", {"last_word": "end"})]
ARGUMENTS: dict[str, Any] = {
    "keywords": ["a"], "forbidden_words": ["a"], "keyword": "a", "keyword1": "a", "keyword2": "b", "frequency": 2,
    "letter": "a", "let_frequency": 2, "language": "en", "num_sentences": 2, "num_paragraphs": 2, "nth_paragraph": 1,
    "first_word": "a", "last_word": "a", "num_words": 2, "num_placeholders": 1, "postscript_marker": "P.S.",
    "num_bullets": 1, "num_highlights": 1, "section_spliter": "S", "num_sections": 1, "prompt_to_repeat": "a b",
    "end_phrase": "a", "capital_frequency": 1, "phrase": "a b c", "small_n": 1, "N": 2, "n_start": 0, "n_end": 1,
    "n": 1, "m": 1, "n_sent": 1, "n_words": 1, "relation": "less than", "let_relation": "less than",
    "capital_relation": "less than",
}  # fmt: skip


def judge(given: list[tuple[str, dict[str, Any]]], text: str, **settings: Any) -> Reward:
    metadata = {"instruction_id_list": [each[0] for each in given], "kwargs": [each[1] for each in given]}
    return If(If.Config(**settings)).verify(Trajectory(Prompt("p", "if", (), None, metadata), (), text))


def test_all_instructions_must_be_followed() -> None:
    assert judge(TWO, "This is the end.") == Reward(1.0, "all followed", {"followed": 1.0})
    assert judge(TWO, "This, my friend") == Reward(0.0, "not followed: punctuation:no_comma", {"followed": 0.0})
    assert judge(TWO, "This is it") == Reward(0.0, "not followed: last_word:last_word_answer", {"followed": 0.5})


def test_the_fraction_is_a_reward_where_it_is_asked_for() -> None:
    assert judge(TWO, "This is it", reward="fraction").value == 0.5
    assert judge(TWO, "This is the end", reward="fraction").value == 1.0


@pytest.mark.parametrize("text", ["", "  \n ", "\u200b", "\x00", "\x1f \x7f", "\ud800", "***"])
@pytest.mark.parametrize("mode", ["strict", "loose"])
def test_nothing_is_not_an_answer(text: str, mode: str) -> None:
    for name in ("punctuation:no_comma", "keywords:forbidden_words", "count:count_unique"):
        shown = judge([(name, {"forbidden_words": ["x"]})], text, mode=mode)
        assert shown.value == 0.0 or text == "***"


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here:\nThis is the end.",
        "This is the end.\nOk, bye",
        "Sure, here:\nThis is the end.\nOk, bye",
        "This is the **end**\n***",
        "Well, so:\n*This is the end*",
    ],
)
def test_loose_takes_any_of_eight_variants(text: str) -> None:
    assert judge(TWO, text, mode="strict").value == 0.0
    assert judge(TWO, text, mode="loose").value == 1.0


def test_loose_is_not_boundless() -> None:
    assert judge(TWO, "a\nWell, so\nThis is the end\nb\nc", mode="loose").value == 0.0


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*a){20}b", "a{1000000}"])
@pytest.mark.parametrize("name", ["keywords:existence", "keywords:forbidden_words", "keywords:word_once"])
def test_a_catastrophic_keyword_ends_in_time_and_earns_nothing(pattern: str, name: str) -> None:
    arguments = {"keywords": [pattern], "forbidden_words": [pattern], "keyword": pattern}
    started = time.process_time()
    reward = judge([(name, arguments)], "a" * 3000 + "!", mode="loose")
    assert time.process_time() - started < 5.0
    assert name == "keywords:forbidden_words" or reward.value == 0.0


@pytest.mark.parametrize("pattern", ["(?R)", "(?1)(a)", r"\p{L}", "a{99999999999}", "("])
def test_what_is_no_expression_of_re_is_literal_text(pattern: str) -> None:
    assert judge([("keywords:existence", {"keywords": [pattern]})], f"I say {pattern}!").value == 1.0
    assert judge([("keywords:existence", {"keywords": [pattern]})], "a (a) b").value == float(pattern == "(")


def test_a_book_is_wrong_and_soon() -> None:
    started = time.process_time()
    reward = judge(TWO, "a " * 2_000_000 + "end")
    assert reward.value == 0.0
    assert "characters" in reward.reason
    assert time.process_time() - started < 1.0


LONG = {
    "lines": "a" + "\n" * 50_000 + "b",
    "spaces": "a" + " " * 50_000 + "b",
    "brackets": "[" * 50_000,
    "angles": "<" * 50_000,
    "stars": "*" * 50_000 + "a",
    "dots": "." * 50_000 + " A.",
    "quotes": '{"' + '\\"' * 50_000,
    "letters": "a" * 100_000,
    "words": "It is so. " * 10_000,
    "initials": "A. " * 20_000,
    "phrases": "a b " * 20_000,
    "hyphens": "a-" * 50_000,
    "unicode": "\u0430\u200b\u0301" * 20_000,
    "surrogates": "\ud800" * 10 + "\x00\ue000\ue001",
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("name", TABLE)
def test_no_text_takes_long_or_raises(name: str, kind: str) -> None:
    arguments = {key: ARGUMENTS[key] for key in INSTRUCTIONS[name].arguments}
    [given] = instructions("here", {"instruction_id_list": [name], "kwargs": [arguments]})
    started = time.process_time()
    follows(given, LONG[kind], "strict")
    assert time.process_time() - started < 2.0


def test_500_simple_answers_a_second() -> None:
    started = time.process_time()
    right = sum(judge(TWO, f"Some words {'and' if n % 2 else 'at the'} end").value == 1.0 for n in range(1000))
    assert right == 1000
    assert time.process_time() - started < 2.0


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("tier", ["must", "control", "hardened", "conformance"])
def test_the_catalogue(tier: str) -> None:
    rows = [row for row in map(json.loads, CATALOGUE.read_text().splitlines()) if row["domain"] == "if"]
    judged = [row for row in rows if row["tier"] == tier and set(row["metadata"]["instruction_id_list"]) <= set(TABLE)]
    assert judged
    domain = If(If.Config())
    for row in judged:
        answer, _ = split(row["response"], "required" if row["metadata"].get("reasoning") == "think" else "off")
        prompt = Prompt(row["id"], "if", (), row["ground_truth"], row["metadata"])
        if not row["metadata"]["instruction_id_list"]:
            with pytest.raises(DataError, match=row["id"]):
                domain.verify(Trajectory(prompt, (), answer or ""))
            continue
        value = 0.0 if answer is None else domain.verify(Trajectory(prompt, (), answer)).value
        assert value == row["expected_reward"], row["id"]
