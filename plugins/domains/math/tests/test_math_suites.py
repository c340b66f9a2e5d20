"""AIME from a local file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Trajectory
from m2rl_domain_math import Math

AIME24 = Path(__file__).resolve().parents[5] / "shared" / "data" / "suites" / "aime24.jsonl"


def write(folder: Path, *rows: object) -> str:
    path = folder / "suite.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.skipif(not AIME24.is_file(), reason="needs ../shared beside the repository")
def test_the_real_problems_load_and_their_own_answers_are_right() -> None:
    domain = Math(Math.Config(aime24=str(AIME24)))
    domain.check()
    prompts = list(domain.prompts("aime24"))
    assert len({prompt.id for prompt in prompts}) == len(prompts) == 30
    for prompt in prompts:
        assert prompt.messages[0]["content"].count("\\boxed{}") == 1
        assert domain.verify(Trajectory(prompt, (), domain.gold(prompt))).value == 1.0
        assert domain.verify(Trajectory(prompt, (), r"\boxed{1000}")).value == 0.0


def test_reads_the_spellings_of_published_copies(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"prompt": "1+1? Box it.", "answer": 2},
        {"problem": "Find $m+n$.", "answer": "033", "solution": "...", "url": "https://..."},
        {"question": "How much, in \\boxed{}?", "expected_answer": 204},
    )
    domain = Math(Math.Config(aime25=path))
    domain.check()
    [one, two, three] = domain.prompts("aime25")
    assert [one.messages[0]["content"], one.ground_truth, one.id] == ["1+1? Box it.", "2", "aime25/000000"]
    assert two.messages[0]["content"].startswith("Find $m+n$.\n")
    assert two.messages[0]["content"].endswith("within \\boxed{}.")
    assert domain.verify(Trajectory(two, (), r"\boxed{33}")).value == 1.0
    assert three.messages[0]["content"] == "How much, in \\boxed{}?"


def test_a_suite_with_a_file_is_declared_beside_the_generated_ones(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "1+1?", "answer": 2})
    suites = Math(Math.Config(aime24=path)).suites
    assert {name for name, suite in suites.items() if not suite.missing} == {"math-heldout", "math-hard", "aime24"}
    assert (suites["aime24"].source, suites["aime24"].k, suites["aime24"].reasoning) == (path, 64, "optional")


@pytest.mark.parametrize("suite", ["aime24", "aime25"])
def test_without_a_file_the_error_says_what_to_download(suite: str) -> None:
    with pytest.raises(DataError, match=rf"suite '{suite}' has nothing to read") as caught:
        Math(Math.Config()).prompts(suite)
    assert f"domains.math.{suite}" in str(caught.value)
    assert "/aime" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"prompt": "?", "answer": None}, "no gold"),
        ({"prompt": "?", "answer": True}, "no gold"),
        ({"prompt": "?"}, "no gold"),
        ({"answer": 4}, "asks nothing"),
        ({"problem": " ", "answer": 4}, "asks nothing"),
        ({"problem": ["?"], "answer": 4}, "asks nothing"),
    ],
)
def test_check_finds_the_bad_row_of_a_suite(tmp_path: Path, row: object, named: str) -> None:
    domain = Math(Math.Config(aime24=write(tmp_path, {"prompt": "1?", "answer": 1}, row)))
    with pytest.raises(DataError, match=named) as caught:
        domain.check()
    assert "suite.jsonl, row 2" in str(caught.value)


def test_check_reads_the_training_rows_too(tmp_path: Path) -> None:
    suite = write(tmp_path, {"prompt": "1?", "answer": 1})
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "?", "expected_answer": ""}) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        Math(Math.Config(source=str(rows), aime24=suite)).check()
