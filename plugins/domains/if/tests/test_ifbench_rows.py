"""Every row of the benchmark, and the rows of the adversarial catalogue that it concerns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from m2rl_domain_if.ifbench import TABLE

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
SUITE = SHARED / "suites" / "ifbench.jsonl"
CATALOGUE = SHARED / "adversarial.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def given(arguments: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (arguments or {}).items() if value is not None}


@pytest.mark.skipif(not SUITE.is_file(), reason="needs ../shared beside the repository")
def test_every_row_is_known_and_well_typed() -> None:
    seen = set()
    for row in lines(SUITE):
        for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            assert given(arguments).keys() == TABLE[name].arguments.keys(), row["key"]
            typed = {
                key: TypeAdapter(TABLE[name].arguments[key]).validate_python(v) for key, v in given(arguments).items()
            }
            for text in ("A text. It says little.", row["prompt"]):
                raw = TABLE[name].check(text, **given(arguments))
                assert raw == TABLE[name].check(text, **typed)
            seen.add(name)
    assert seen == set(TABLE)


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
def test_the_catalogue() -> None:
    for row in lines(CATALOGUE):
        names = row["metadata"].get("instruction_id_list") or ()
        if row["domain"] != "if" or not names or not TABLE.keys() >= set(names):
            continue
        pairs = zip(names, row["metadata"]["kwargs"], strict=True)
        followed = all(TABLE[name].check(row["response"].strip(), **given(arguments)) for name, arguments in pairs)
        assert followed == row["expected_reward"], row["id"]


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("count:words_japanese", "N", 0),
        ("sentence:keyword", "N", -1),
        ("sentence:keyword", "word", " "),
        ("count:numbers", "N", 2.5),
        ("format:list", "sep", ""),
        ("ratio:stop_words", "percentage", 101),
        ("repeat:repeat_span", "n_start", -3),
        ("repeat:repeat_change", "prompt_to_repeat", ""),
    ],
)
def test_arguments_out_of_range(name: str, argument: str, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(TABLE[name].arguments[argument]).validate_python(value)
