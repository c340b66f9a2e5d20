"""The published suites from local copies; all rows are made up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_science import Science

LISTED = "Which of these is made up?\n\nAnswer Choices:\nA. the first\nB. the second\nC. the third"


def gpqa(number: int, **changes: object) -> dict[str, object]:
    wrong = {f"Incorrect Answer {place}": f"{number * 10 + place} gnomes" for place in (1, 2, 3)}
    return (
        {"Question": f"How many gnomes are in garden {number}?", "Correct Answer": f"{number * 10} gnomes\n"}
        | wrong
        | changes
    )


def hle(question: str, answer: object, kind: object = "exactMatch", image: object = "") -> dict[str, object]:
    return {"question": question, "answer": answer, "answer_type": kind, "image": image}


def write(folder: Path, rows: Sequence[object]) -> str:
    path = folder / "suite.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def of(folder: Path, suite: str, *rows: object, seed: int = 0) -> tuple[Science, list[Prompt]]:
    settings: Any = {suite.replace("-", "_"): write(folder, rows), "seed": seed}
    domain = Science(Science.Config(**settings))
    return domain, list(domain.prompts(suite))


def value(domain: Science, prompt: Prompt, text: str) -> float | None:
    return domain.verify(Trajectory(prompt, (), text)).value


def test_gpqa_has_four_samples_and_its_gold_is_right(tmp_path: Path) -> None:
    domain, prompts = of(tmp_path, "gpqa-diamond", *map(gpqa, range(1, 199)))
    suite = domain.suites["gpqa-diamond"]
    assert (len(prompts), suite.k, suite.source, suite.reasoning) == (198, 4, str(tmp_path / "suite.jsonl"), "optional")
    assert [prompt.id for prompt in prompts[:2]] == ["gpqa-diamond/000000", "gpqa-diamond/000001"]
    for number, prompt in enumerate(prompts, 1):
        assert prompt.metadata["options"][prompt.ground_truth] == f"{number * 10} gnomes"
        assert all(
            f"{letter}) {text}" in prompt.messages[0]["content"] for letter, text in prompt.metadata["options"].items()
        )
        assert value(domain, prompt, domain.gold(prompt)) == 1.0
        assert value(domain, prompt, f"Answer: {number * 10} gnomes") == 1.0
        assert value(domain, prompt, f"Answer: {'B' if prompt.ground_truth == 'A' else 'A'}") == 0.0
    domain.check()


def test_gpqa_is_shuffled_by_the_seed_and_the_question_alone(tmp_path: Path) -> None:
    some = list(map(gpqa, range(1, 199)))
    _, prompts = of(tmp_path, "gpqa-diamond", *some)
    share = Counter(prompt.ground_truth for prompt in prompts)
    assert min(share[letter] for letter in "ABCD") > 30
    assert of(tmp_path, "gpqa-diamond", *some)[1] == prompts
    backwards = of(tmp_path, "gpqa-diamond", *some[::-1])[1]
    assert [prompt.metadata for prompt in backwards[::-1]] == [prompt.metadata for prompt in prompts]
    other = of(tmp_path, "gpqa-diamond", *some, seed=1)[1]
    moved = sum(one.metadata != two.metadata for one, two in zip(prompts, other, strict=True))
    assert moved > 150


@pytest.mark.parametrize(
    "row",
    [
        gpqa(2, Question=" "),
        gpqa(2, **{"Correct Answer": None}),
        gpqa(2, **{"Incorrect Answer 3": ""}),
        gpqa(2, **{"Incorrect Answer 2": "20 gnomes "}),
        {"question": "?", "answer": "A"},
    ],
)
def test_a_bad_row_of_gpqa_is_an_error_that_names_it(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match=r"suite.jsonl, row 2"):
        of(tmp_path, "gpqa-diamond", gpqa(1), row)


def test_hle_is_text_only(tmp_path: Path) -> None:
    rows = [
        hle("How many?", 7),
        hle("See the picture.", "7", image="data:image/png;base64,AAAA"),
        hle(LISTED, "C", "multipleChoice", None),
    ]
    domain, [number, choice] = of(tmp_path, "hle", *rows)
    assert domain.suites["hle"].k == 1
    assert [number.id, choice.id] == ["hle/000000", "hle/000001"]
    assert value(domain, number, "Answer: 7.0") == 1.0
    assert choice.metadata["options"] == {"A": "the first", "B": "the second", "C": "the third"}
    assert value(domain, choice, domain.gold(choice)) == 1.0
    assert value(domain, choice, "Answer: the third") == 1.0
    assert value(domain, choice, "Answer: C or B") == 0.0
    assert "the letter" in choice.messages[0]["content"]
    assert "the letter" not in number.messages[0]["content"]
    domain.check()


@pytest.mark.parametrize("gold", ["K", "T"])
def test_hle_may_have_more_than_ten_options(tmp_path: Path, gold: str) -> None:
    letters = [chr(code) for code in range(ord("A"), ord("V"))]
    listed = "Which?\n" + "\n".join(f"({letter}) thing {letter}" for letter in letters)
    domain, prompts = of(
        tmp_path, "hle", *(hle(q, gold, "multipleChoice") for q in (listed, "Which? A) one B) two ..."))
    )
    for prompt in prompts:
        assert value(domain, prompt, f"Answer: {gold}") == 1.0
        assert value(domain, prompt, f"Answer: {gold}) because it fits") == 1.0
        assert value(domain, prompt, f"Answer: {gold}, A") == 0.0
        assert value(domain, prompt, f"Answer: {gold} or B") == 0.0
        assert value(domain, prompt, "Answer: B") == 0.0


def test_a_choice_whose_gold_is_no_letter_is_compared_as_text(tmp_path: Path) -> None:
    domain, [prompt] = of(tmp_path, "hle", hle(LISTED, "A and C", "multipleChoice"))
    assert value(domain, prompt, "Answer: A and C") == 1.0
    assert value(domain, prompt, "Answer: A") == 0.0


@pytest.mark.parametrize(
    "row",
    [hle("?", ""), hle("?", None), hle("?", True), hle("", "7"), hle("?", "7", "essay"), hle("?", "7", None), gpqa(1)],
)
def test_a_bad_row_of_hle_is_an_error_that_names_it(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match=r"suite.jsonl, row 2"):
        of(tmp_path, "hle", hle("?", "7"), row)


@pytest.mark.parametrize(
    ("suite", "setting", "source"), [("gpqa-diamond", "gpqa_diamond", "Idavidrein/gpqa"), ("hle", "hle", "cais/hle")]
)
def test_a_suite_without_a_file_says_what_to_do(tmp_path: Path, suite: str, setting: str, source: str) -> None:
    assert Science(Science.Config()).suites[suite].missing
    for settings in ({}, {setting: str(tmp_path / "no.jsonl")}, {setting: str(tmp_path)}):
        domain = Science(Science.Config(**settings))  # type: ignore[arg-type]
        with pytest.raises(
            DataError, match=rf"accept the terms of \S*{source}, download .* domains\.science\.{setting}"
        ):
            domain.prompts(suite)
        if settings:
            with pytest.raises(DataError, match=suite):
                domain.check()


def test_a_check_reads_the_suites(tmp_path: Path) -> None:
    path = write(tmp_path, [gpqa(1), {}])
    with pytest.raises(DataError, match=r"suite.jsonl, row 2"):
        Science(Science.Config(gpqa_diamond=path)).check()
    path = write(tmp_path, [hle("?", "7", image="some")])
    with pytest.raises(DataError, match="no prompt"):
        Science(Science.Config(hle=path)).check()
