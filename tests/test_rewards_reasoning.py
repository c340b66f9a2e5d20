"""The format gate: hand cases and the catalogue of fooling responses."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest

from m2rl_core.rewards.reasoning import split
from m2rl_core.types import Reasoning

CATALOGUE = Path(__file__).resolve().parents[2] / "shared" / "data" / "adversarial.jsonl"

CASES: list[tuple[str, Reasoning, str | None]] = [
    ("<think>2+2</think>\n\n4", "required", "4"),
    ("2+2</think> 4", "required", "4"),  # the chat template opened the reasoning
    ("4", "required", None),
    ("", "required", None),
    ("<think>2+2", "required", None),
    ("<think>2+2 = 4", "optional", None),
    ("<think>2+2</think>", "required", None),
    ("<think>2+2</think> \n<|im_end|>", "required", None),
    ("<think>a</think>4</think>5", "required", None),
    ("<think>a</think><think>b</think>5", "required", None),
    ("<think>a</think>4<think>b", "required", None),
    ("</think><think>4", "required", None),
    ("<think><think>a</think>4", "required", "4"),
    ("so <think>a</think>4", "required", "4"),  # what stands before the reasoning does not count
    ("4", "optional", "4"),
    (" 4\n", "optional", " 4\n"),
    ("", "optional", ""),
    ("<think>2+2</think>4", "optional", "4"),
    ("2+2</think>4", "optional", "4"),
    ("<think>a</think>4</think>5", "optional", None),
    ("<think>2+2</think>4", "off", "<think>2+2</think>4"),
    ("<think>2+2", "off", "<think>2+2"),
    (" 4\n", "off", " 4\n"),
    ("<think>a</think>4<|im_end|>", "required", "4"),
    ("<think>a</think>4 <|im_end|>\n<|endoftext|>\n", "required", "4"),
    ("4</s>", "off", "4"),
    ("<|im_end|> is a token", "off", "<|im_end|> is a token"),
]


@pytest.mark.parametrize(("text", "mode", "answer"), CASES)
def test_what_is_graded(text: str, mode: Reasoning, answer: str | None) -> None:
    found, reason = split(text, mode)
    assert found == answer
    assert bool(reason) == (answer is None)


def test_reasons_name_the_fault() -> None:
    assert split("<think>2+2", "required")[1] == "the reasoning is not closed by </think>"
    assert split("a</think>b</think>c", "optional")[1] == "more than one </think>"
    assert split("a</think><think>c", "required")[1] == "<think> after the reasoning"
    assert split("a</think>", "required")[1] == "nothing follows the reasoning"


def test_long_texts_take_no_time() -> None:
    for text in ("<think>" * 100_000, " " * 1_000_000 + "x", "<|im_end|>" * 3_000, "a</think>" + "<" * 1_000_000):
        split(text, "required")


def test_many_endings_take_no_time() -> None:
    started = process_time()
    assert split("a </s> <|im_end|>\n", "off") == ("a ", "")
    assert split("</s>\n" * 100_000, "off") == ("", "")
    assert process_time() - started < 2.0


@pytest.mark.skipif(not CATALOGUE.exists(), reason="the catalogue is not there")
def test_catalogue() -> None:
    """Every control passes with what follows the reasoning; an answer in the reasoning alone does not."""
    rows = [json.loads(line) for line in CATALOGUE.read_text().splitlines()]
    gated = {row["id"]: row for row in rows if row["metadata"].get("reasoning") == "think" and row["domain"] != "agent"}
    answers = {id_: split(row["response"], "required")[0] for id_, row in gated.items()}
    assert answers["math-think-ok"] == "\\boxed{204}"
    assert answers["math-think-only"] == "I could not solve it."
    assert all(answers[id_] is not None for id_, row in gated.items() if row["expected_reward"] == 1)
    assert [answers[id_] for id_ in ("if-think-only", "science-think-only", "science-think-unclosed")] == [None] * 3
